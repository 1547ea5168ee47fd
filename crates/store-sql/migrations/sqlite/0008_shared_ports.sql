CREATE TABLE shared_ports (
  gitspace_id TEXT NOT NULL REFERENCES gitspaces (id) ON DELETE CASCADE,
  port INTEGER NOT NULL,
  visibility TEXT NOT NULL,
  user_id TEXT NOT NULL REFERENCES users (id),
  created BIGINT NOT NULL,
  PRIMARY KEY (gitspace_id, port)
);
