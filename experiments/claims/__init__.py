"""The papers' figures with their claims, a package per paper, a module per figure or group of figures."""
