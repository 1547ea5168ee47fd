-- `last_disconnect` holds a code beside the words.
UPDATE delegates SET last_disconnect = json_object('code', 'other', 'reason', last_disconnect)
  WHERE last_disconnect IS NOT NULL;
