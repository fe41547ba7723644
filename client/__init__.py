"""The customer's side: keys, encryption, the SDK, the command line. Secrets live only here."""
