"""What is wrong with what the model was fed, by what its rows logged. May import what the folder above may, not the causes."""
