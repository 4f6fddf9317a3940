"""What an item is: media fetched and decoded within limits, and the encoders that read them.

Everything here needs the extra ``content`` (``pip install 'reelflow[content]'``), and imports its packages
only when used.
"""
