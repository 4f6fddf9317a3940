"""What half precision, int8 and fewer heads cost in accuracy, and save in time; see ``__main__``."""
