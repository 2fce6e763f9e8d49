"""A Flower app that tunes a LoRA adapter: model and texts, client, server."""
