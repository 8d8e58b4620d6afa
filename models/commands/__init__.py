"""One module per command of `edge-models`; each exposes `register(app)` and imports lazily."""
