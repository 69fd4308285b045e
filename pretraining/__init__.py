"""How the packaged weights of `tiny` come about: synthetic scenes with captions, and the loop that learns from them.

Not part of the product: nothing imports this room, and of the others it knows only `model`. It reads no image file.
"""
