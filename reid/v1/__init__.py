"""Generated from proto/reid/v1 by `make proto`; committed, its freshness is checked by a test."""
