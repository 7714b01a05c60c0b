"""The proof: traffic in, better adapters out, nothing mocked but the cloud. `make proof`."""
