-- A Git credential is for one scheme. Those that are there were stored without one and go over https alone.
-- SQLite cannot change a constraint: the table is made anew.
CREATE TABLE git_credentials_by_scheme (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id),
  scheme TEXT NOT NULL CHECK (scheme IN ('https', 'http')),
  host TEXT NOT NULL,
  username TEXT NOT NULL,
  sealed BLOB NOT NULL,
  created BIGINT NOT NULL,
  UNIQUE (user_id, scheme, host)
);
INSERT INTO git_credentials_by_scheme (id, user_id, scheme, host, username, sealed, created)
  SELECT id, user_id, 'https', host, username, sealed, created FROM git_credentials;
DROP TABLE git_credentials;
ALTER TABLE git_credentials_by_scheme RENAME TO git_credentials;
