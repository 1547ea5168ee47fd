-- A token with which a revoked delegate comes back, and no other host.
ALTER TABLE join_tokens ADD COLUMN delegate_id TEXT REFERENCES delegates (id);
