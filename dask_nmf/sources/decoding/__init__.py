"""Values made plain: packed integers decoded, masks and nulls as NaN, tables of other libraries as arrays."""
