"""`python -m onnxembed`, the same as the onnxembed command."""

from onnxembed.cli import main

main()
