"""Small programs for the Makefile; not part of the product."""
