CREATE TABLE ssh_keys (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id),
  name TEXT NOT NULL,
  -- `type base64`, one spelling for each key.
  key TEXT NOT NULL,
  fingerprint BLOB NOT NULL UNIQUE,
  last_used BIGINT,
  created BIGINT NOT NULL
);
CREATE INDEX ssh_keys_by_user ON ssh_keys (user_id);
