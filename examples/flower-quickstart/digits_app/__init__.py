"""A Flower app, as Flower's own quickstart has it: data and model, client, server."""
