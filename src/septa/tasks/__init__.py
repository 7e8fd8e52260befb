"""Tasks: what labels mean. Each encodes labels to targets and decodes network output to labels."""
