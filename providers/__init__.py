"""How models are reached: one protocol, one adapter a module."""
