"""Promises of e2kdisk, one file a family; helpers are imported as tests.oracles and so on."""
