use super::*;
use daemon::{IdsExt as _, ManualClock, SequentialIds};
use wire::{gitspace::Generation, task::TaskVerb};

fn temp() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    (dir, path)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::default())
}

fn task() -> Task {
    let ids = SequentialIds::default();
    Task {
        id: ids.typed(),
        gitspace: ids.typed(),
        generation: Generation(1),
        attempt: 1,
        deadline: Timestamp::UNIX_EPOCH,
        trace: ids.typed(),
        verb: TaskVerb::Stop {},
    }
}

fn started() -> TaskEventKind {
    TaskEventKind::PhaseStarted { phase: Phase::Stop }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_full_disk_are_written_once_there_is_room() {
    let (_guard, dir) = temp();
    let mount = nix::mount::mount(
        Some("tmpfs"),
        dir.as_std_path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=64k"),
    );
    mount.expect("root mounts a tmpfs");
    let task = task();
    let journal = Journal::open(&dir, clock()).unwrap();
    let running = journal.create(&task).unwrap();
    running.add(started());
    let filler = dir.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    for _ in 0..100 {
        running.add(started());
    }
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    running.add(started());
    drop(running);
    drop(journal);
    let again = Journal::open(&dir, clock()).unwrap();
    let status = again.get(task.id).unwrap().status();
    let damaged = again.damaged();
    drop(again);
    nix::mount::umount(dir.as_std_path()).unwrap();
    assert_eq!((status.last_seq, damaged), (102, 0));
}

#[test]
fn a_torn_last_line_is_dropped_and_its_number_used_again() {
    let (_guard, dir) = temp();
    let task = task();
    let journal = Journal::open(&dir, clock()).unwrap();
    let written = journal.create(&task).unwrap();
    written.add(started());
    written.add(started());
    let path = dir.join(format!("tasks/{}.jsonl", task.id));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let again = Journal::open(&dir, clock()).unwrap().get(task.id).unwrap();
    assert_eq!(again.status().last_seq, 1);
    again.add(started());
    let third = Journal::open(&dir, clock()).unwrap().get(task.id).unwrap();
    let seqs: Vec<u64> = third.events(0).0.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2]);
}

/// Whatever is left of a journal, the reader hears the end once, with a number that it has not seen.
#[test]
fn a_journal_cut_at_any_byte_is_told_or_goes_on_to_its_end() {
    let (_guard, dir) = temp();
    let task = task();
    let finished = || TaskEventKind::Finished {
        outcome: wire::task::TaskOutcome::Done {},
        observed: Box::new(wire::gitspace::Observed {
            gitspace: task.gitspace,
            state: wire::gitspace::ObservedState::Stopped,
            generation: Generation(1),
            revision: 1,
            at: Timestamp::UNIX_EPOCH,
            failure: None,
            task: None,
            dev_container: None,
        }),
    };
    let written = Journal::open(&dir, clock()).unwrap().create(&task).unwrap();
    for _ in 0..4 {
        written.add(started());
    }
    written.add(finished());
    let path = dir.join(format!("tasks/{}.jsonl", task.id));
    let whole = std::fs::read(&path).unwrap();
    let head = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for end in 0..=whole.len() {
        std::fs::write(&path, whole.get(..end).unwrap()).unwrap();
        let journal = Journal::open(&dir, clock()).unwrap();
        let Some(cut) = journal.get(task.id) else {
            assert!(end <= head, "cut at {end}: the task is lost");
            assert_eq!(journal.damaged(), 1, "cut at {end}");
            std::fs::remove_file(format!("{path}.damaged")).unwrap();
            continue;
        };
        assert!(end > head, "cut at {end}");
        // It goes on before anybody asks.
        if !cut.finished() {
            cut.add(finished());
        }
        for seen in 0..=4 {
            let heard = cut.end_after(seen).or_else(|| cut.events(seen).0.pop());
            let heard = heard.unwrap();
            assert!(
                heard.seq > seen && matches!(heard.event, TaskEventKind::Finished { .. }),
                "cut at {end}, seen {seen}: {heard:?}"
            );
        }
    }
}

#[test]
fn a_journal_without_a_whole_first_line_is_put_aside() {
    let (_guard, dir) = temp();
    std::fs::create_dir_all(dir.join("tasks")).unwrap();
    std::fs::write(dir.join("tasks/x.jsonl"), "{\"format\":1,").unwrap();
    let journal = Journal::open(&dir, clock()).unwrap();
    assert_eq!(journal.damaged(), 1);
    assert!(dir.join("tasks/x.jsonl.damaged").exists());
}

#[test]
fn the_log_of_one_task_ends_at_its_limit_with_a_word() {
    let (_guard, dir) = temp();
    let journal = Journal::open(&dir, clock()).unwrap();
    let written = journal.create(&task()).unwrap();
    let chunk = "é".repeat(MAX_LOG_TEXT);
    for _ in 0..400 {
        written.log(Phase::Clone, LogStream::Stdout, &chunk);
    }
    let mut events = Vec::new();
    loop {
        let after = events.last().map_or(0, |event: &TaskEvent| event.seq);
        let (batch, _) = written.events(after);
        if batch.is_empty() {
            break;
        }
        events.extend(batch);
    }
    let total: usize = events
        .iter()
        .map(|event| match &event.event {
            TaskEventKind::Log { text, .. } => {
                assert!(text.len() <= MAX_LOG_TEXT);
                text.len()
            }
            _ => 0,
        })
        .sum();
    assert!(total < MAX_LOG + 2 * MAX_LOG_TEXT, "{total}");
    assert!(matches!(
        &events.last().unwrap().event,
        TaskEventKind::Log {
            stream: LogStream::System,
            ..
        }
    ));
}

#[test]
fn numbers_that_a_reader_has_seen_are_not_used_again() {
    let (_guard, dir) = temp();
    let journal = Journal::open(&dir, clock()).unwrap();
    let written = journal.create(&task()).unwrap();
    written.add(started());
    written.skip_to(5);
    written.add(started());
    assert_eq!(written.events(5).0[0].seq, 6);
}
