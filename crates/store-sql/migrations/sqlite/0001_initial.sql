-- Times are microseconds since 1970 in UTC, ids are UUIDs as text, words and JSON are as on the wire.

CREATE TABLE users (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  email TEXT,
  role TEXT NOT NULL,
  disabled INTEGER NOT NULL,
  created BIGINT NOT NULL
);

CREATE TABLE access_tokens (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id),
  name TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  exp BIGINT NOT NULL,
  revoked INTEGER NOT NULL,
  last_used BIGINT,
  created BIGINT NOT NULL
);
CREATE INDEX access_tokens_by_user ON access_tokens (user_id);

CREATE TABLE sessions (
  hash BLOB PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id),
  csrf TEXT NOT NULL,
  exp BIGINT NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_exp ON sessions (exp);

CREATE TABLE idempotency_keys (
  user_id TEXT NOT NULL REFERENCES users (id),
  key TEXT NOT NULL,
  request BLOB NOT NULL,
  claimed BIGINT NOT NULL,
  status INTEGER,
  body BLOB,
  exp BIGINT NOT NULL,
  PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_by_exp ON idempotency_keys (exp);

CREATE TABLE git_credentials (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id),
  host TEXT NOT NULL,
  username TEXT NOT NULL,
  sealed BLOB NOT NULL,
  created BIGINT NOT NULL,
  UNIQUE (user_id, host)
);

CREATE TABLE join_tokens (
  id TEXT PRIMARY KEY,
  comment TEXT,
  hash BLOB NOT NULL UNIQUE,
  uses_left BIGINT NOT NULL CHECK (uses_left >= 0),
  exp BIGINT NOT NULL,
  revoked INTEGER NOT NULL,
  created BIGINT NOT NULL
);

CREATE TABLE delegates (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  tags TEXT NOT NULL,
  public_key BLOB NOT NULL UNIQUE,
  revoked INTEGER NOT NULL,
  version TEXT,
  inventory TEXT,
  last_seen BIGINT,
  last_disconnect TEXT,
  epoch BIGINT NOT NULL,
  created BIGINT NOT NULL
);

CREATE TABLE infra_providers (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  selectors TEXT NOT NULL,
  created BIGINT NOT NULL
);

CREATE TABLE machines (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  infra_provider_id TEXT NOT NULL REFERENCES infra_providers (id),
  resources TEXT NOT NULL,
  is_default INTEGER NOT NULL,
  created BIGINT NOT NULL
);
CREATE UNIQUE INDEX machines_one_default ON machines (is_default) WHERE is_default = 1;

CREATE TABLE gateways (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  token_hash BLOB NOT NULL UNIQUE,
  created BIGINT NOT NULL
);

CREATE TABLE settings (
  key TEXT PRIMARY KEY,
  value BLOB NOT NULL
);

CREATE TABLE revocations (
  subject TEXT PRIMARY KEY,
  before BIGINT NOT NULL,
  exp BIGINT NOT NULL
);

CREATE TABLE gitspaces (
  id TEXT PRIMARY KEY,
  owner_id TEXT NOT NULL REFERENCES users (id),
  name TEXT NOT NULL,
  slug TEXT NOT NULL UNIQUE,
  repo TEXT NOT NULL,
  machine TEXT NOT NULL,
  resources TEXT NOT NULL,
  infra_provider_id TEXT NOT NULL REFERENCES infra_providers (id),
  created BIGINT NOT NULL,
  version BIGINT NOT NULL,
  desired TEXT NOT NULL,
  generation BIGINT NOT NULL,
  trace TEXT NOT NULL,
  observed TEXT,
  delegate_id TEXT REFERENCES delegates (id),
  task_id TEXT,
  phase TEXT,
  attempts BIGINT NOT NULL,
  retry_at BIGINT,
  exits TEXT NOT NULL,
  error TEXT,
  waiting TEXT,
  updated BIGINT NOT NULL,
  deleted BIGINT,
  -- Ids of the timeline and log entries given last: they never go back, also when entries are dropped.
  last_event BIGINT NOT NULL,
  last_log BIGINT NOT NULL
);
CREATE UNIQUE INDEX gitspaces_live_name ON gitspaces (owner_id, name) WHERE deleted IS NULL;
CREATE INDEX gitspaces_live_by_creation ON gitspaces (created, id) WHERE deleted IS NULL;

CREATE TABLE one_time_codes (
  hash BLOB PRIMARY KEY,
  gitspace_id TEXT NOT NULL REFERENCES gitspaces (id),
  port INTEGER,
  user_id TEXT NOT NULL REFERENCES users (id),
  return_to TEXT NOT NULL,
  exp BIGINT NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX one_time_codes_by_exp ON one_time_codes (exp);

CREATE TABLE tasks (
  id TEXT PRIMARY KEY,
  gitspace_id TEXT NOT NULL REFERENCES gitspaces (id),
  delegate_id TEXT NOT NULL REFERENCES delegates (id),
  kind TEXT NOT NULL,
  generation BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  deadline BIGINT NOT NULL,
  trace TEXT NOT NULL,
  state TEXT NOT NULL,
  stored_seq BIGINT NOT NULL,
  created BIGINT NOT NULL,
  finished BIGINT
);
CREATE UNIQUE INDEX tasks_one_open ON tasks (gitspace_id) WHERE state <> 'finished';

CREATE TABLE timeline (
  gitspace_id TEXT NOT NULL REFERENCES gitspaces (id),
  id BIGINT NOT NULL,
  at BIGINT NOT NULL,
  kind TEXT NOT NULL,
  message TEXT NOT NULL,
  phase TEXT,
  duration_ms BIGINT,
  failure TEXT,
  generation BIGINT NOT NULL,
  task_id TEXT,
  trace TEXT NOT NULL,
  state TEXT NOT NULL,
  PRIMARY KEY (gitspace_id, id)
);

CREATE TABLE log_entries (
  gitspace_id TEXT NOT NULL REFERENCES gitspaces (id),
  id BIGINT NOT NULL,
  at BIGINT NOT NULL,
  phase TEXT NOT NULL,
  stream TEXT NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (gitspace_id, id)
);
