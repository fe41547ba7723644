"""The provider's side: artifacts and ciphertexts in, ciphertexts out; backends and the endpoint."""
