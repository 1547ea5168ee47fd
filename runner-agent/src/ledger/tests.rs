use super::*;
use daemon::IdsExt as _;
use wire::gitspace::Generation;

pub(super) fn temp() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    (dir, path)
}

pub(super) fn ready(key: &str) -> Spare {
    Spare {
        ready: true,
        ..Spare::new(key.to_owned(), "i".to_owned(), "a".to_owned())
    }
}

#[test]
fn a_record_is_found_again_after_a_restart() {
    let (_guard, dir) = temp();
    let id = daemon::SequentialIds::default().typed();
    let ledger = Ledger::open(&dir).unwrap();
    ledger
        .update(id, |record| record.generation = Generation(7))
        .unwrap();
    let again = Ledger::open(&dir).unwrap();
    assert_eq!(again.get(id).unwrap().generation, Generation(7));
    again.remove(id, jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert!(Ledger::open(&dir).unwrap().get(id).is_none());
}

#[test]
fn a_damaged_entry_is_put_aside_and_the_others_are_read() {
    let (_guard, dir) = temp();
    let id = daemon::SequentialIds::default().typed();
    Ledger::open(&dir).unwrap().update(id, |_| {}).unwrap();
    let bad = dir.join("gitspaces/bad.json");
    std::fs::write(&bad, "{\"format\": 1, \"gitsp").unwrap();
    let future = dir.join("gitspaces/future.json");
    std::fs::write(&future, "{\"format\": 99}").unwrap();
    let ledger = Ledger::open(&dir).unwrap();
    assert!(ledger.get(id).is_some());
    assert_eq!(ledger.damaged().len(), 2);
    assert!(!bad.exists() && dir.join("gitspaces/bad.json.damaged").exists());
}

/// Every way in which a file can be cut is told, and takes nothing else with it.
#[test]
fn an_entry_cut_at_any_byte_is_told_and_never_read_as_another() {
    let (_guard, dir) = temp();
    let ids = daemon::SequentialIds::default();
    let (cut, kept) = (ids.typed(), ids.typed());
    let ledger = Ledger::open(&dir).unwrap();
    for id in [cut, kept] {
        ledger
            .update(id, |record| {
                record.taken = Generation(12);
                record.machine = Some(MachineRecord {
                    key: format!("{id}"),
                    sandbox: false,
                });
            })
            .unwrap();
    }
    ledger.put_spare(&ready("k1")).unwrap();
    ledger
        .remove(ids.typed(), jiff::Timestamp::UNIX_EPOCH)
        .unwrap();
    let files: Vec<Utf8PathBuf> = ["gitspaces", "spares", "deleted"]
        .iter()
        .flat_map(|folder| dir.join(folder).read_dir_utf8().unwrap())
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| !path.as_str().contains(&kept.to_string()))
        .collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&file, whole.get(..end).unwrap()).unwrap();
            let ledger = Ledger::open(&dir).unwrap();
            assert_eq!(ledger.damaged().len(), 1, "{file} cut at {end}");
            assert!(ledger.get(kept).is_some(), "{file} cut at {end}");
            let found = ledger.records().len() + ledger.spares().len() + ledger.deleted().len();
            assert_eq!(found, 3, "{file} cut at {end}: the others alone");
            let aside = format!("{file}.damaged");
            let again = Ledger::open(&dir).unwrap();
            assert_eq!(again.damaged().len(), 1, "told until it is removed");
            std::fs::remove_file(aside).unwrap();
            std::fs::write(&file, &whole).unwrap();
        }
        assert!(Ledger::open(&dir).unwrap().damaged().is_empty());
    }
}

#[test]
fn a_spare_of_an_earlier_run_is_given_to_nobody_before_it_was_looked_at() {
    let (_guard, dir) = temp();
    let ids = daemon::SequentialIds::default();
    Ledger::open(&dir).unwrap().put_spare(&ready("k1")).unwrap();
    let again = Ledger::open(&dir).unwrap();
    assert!(again.claim_spare(ids.typed(), |_| true).unwrap().is_none());
    assert_eq!(again.spares().len(), 1);
}

#[test]
fn a_spare_is_given_once() {
    let (_guard, dir) = temp();
    let ids = daemon::SequentialIds::default();
    let ledger = Ledger::open(&dir).unwrap();
    ledger.put_spare(&ready("k1")).unwrap();
    let claimed = ledger.claim_spare(ids.typed(), |_| true).unwrap().unwrap();
    assert_eq!(claimed.machine.unwrap().key, "k1");
    assert!(ledger.claim_spare(ids.typed(), |_| true).unwrap().is_none());
    assert!(Ledger::open(&dir).unwrap().spares().is_empty());
}

#[test]
fn a_spare_that_was_claimed_before_a_crash_is_not_a_spare_any_more() {
    let (_guard, dir) = temp();
    let ids = daemon::SequentialIds::default();
    let ledger = Ledger::open(&dir).unwrap();
    ledger.claim_spare(ids.typed(), |_| true).unwrap();
    ledger
        .update(ids.typed(), |record| {
            record.machine = Some(MachineRecord {
                key: "k1".to_owned(),
                sandbox: true,
            });
        })
        .unwrap();
    // As a kill between the two writes leaves it.
    ledger.put_spare(&ready("k1")).unwrap();
    assert!(Ledger::open(&dir).unwrap().spares().is_empty());
}
