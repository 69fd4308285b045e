"""The Wardround service: everything with an address, a clock or a disk."""
