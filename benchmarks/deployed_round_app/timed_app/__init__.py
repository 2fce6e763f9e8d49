"""The built-in app with clocks on it, or the same training under Flower's FedAvg."""
