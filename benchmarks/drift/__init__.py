"""Whether a change of every taste is noticed, and how soon lists are as good as before."""
