"""A run's model as others can use it: a folder in the form of the Hugging Face Hub, on this machine or there."""
