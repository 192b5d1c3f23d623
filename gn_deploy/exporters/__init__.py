"""From a PyTorch module to an ONNX model: recipes say what to export, ``torch`` exports it."""
