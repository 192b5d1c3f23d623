"""The project's own TensorRT plugin: what it is asked, which kernel answers, how it is compiled and loaded."""
