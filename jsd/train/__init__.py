"""Training: drawings and captions, the autoencoder, the text-to-image model. Needs the `train` extra."""
