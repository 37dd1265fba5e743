"""Embedded defaults that need no network and no key: an artificial clinic and a simulator of an LLM."""
