-- What an operator ordered to be removed of a delegate's host although no gitspace here accounts for it. Kept, like the rows of deleted
-- gitspaces: should the host tell of it again, the order still holds.
CREATE TABLE removals (
  gitspace_id TEXT NOT NULL,
  delegate_id TEXT NOT NULL REFERENCES delegates (id),
  user_id TEXT NOT NULL REFERENCES users (id),
  created BIGINT NOT NULL,
  PRIMARY KEY (gitspace_id, delegate_id)
);
