"""The provider emulator: an HTTP server that speaks provider protocols and judges its callers by limits of its own."""
