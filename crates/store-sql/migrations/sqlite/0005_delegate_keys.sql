-- A delegate's key can be rotated: the next one is kept beside it until it is used, and what was ended is known by name.
ALTER TABLE delegates ADD COLUMN key_since BIGINT NOT NULL DEFAULT 0;
UPDATE delegates SET key_since = created;
ALTER TABLE delegates ADD COLUMN next_key BLOB;
CREATE UNIQUE INDEX delegates_next_key ON delegates (next_key);
CREATE TABLE ended_keys (
  public_key BLOB PRIMARY KEY,
  delegate_id TEXT NOT NULL REFERENCES delegates (id),
  ended BIGINT NOT NULL
);
CREATE INDEX ended_keys_by_delegate ON ended_keys (delegate_id, ended);
