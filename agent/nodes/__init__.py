"""The steps of an audit, one module each: `(state, desk) -> what changes in the state`."""
