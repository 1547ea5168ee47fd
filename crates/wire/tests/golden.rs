//! Frames of `gitspaces.control.v1`, and what tunnels and gateways say and check, as they are on the wire: one file for each, in `golden/v1`.
//!
//! A file that is there is never changed: it is what a delegate or a control plane of the version before sends. `GITSPACES_WRITE_GOLDEN=1`
//! writes the files that are missing. `docs/protocol.md` says what may be added to a version.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing test stops at once"
)]

#[path = "golden/samples.rs"]
mod samples;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use wire::control::{DisconnectCode, Down, Frame, Up};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

fn path_of(name: &str) -> String {
    format!("{FOLDER}/{name}.json")
}

fn kept(name: &str) -> String {
    let path = path_of(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{path}: {error}; is it new? GITSPACES_WRITE_GOLDEN=1 writes it")
    })
}

fn kept_or_written(name: &str, sample: &impl Serialize) -> String {
    let path = path_of(name);
    if std::env::var_os("GITSPACES_WRITE_GOLDEN").is_some() && !std::fs::exists(&path).unwrap() {
        std::fs::write(&path, serde_json::to_string(sample).unwrap() + "\n").unwrap();
    }
    kept(name)
}

/// Today's types write what the file holds, read it, and write it again without loss.
fn holds<T: Serialize + DeserializeOwned>(name: &str, sample: &T) {
    let text = kept_or_written(name, sample);
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        serde_json::to_value(sample).unwrap(),
        file,
        "{name}: written"
    );
    let read: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(serde_json::to_value(&read).unwrap(), file, "{name}: read");
}

#[test]
fn every_frame_is_written_and_read_as_it_always_was() {
    let mut names = BTreeSet::new();
    for (name, frame) in samples::up() {
        holds(&name, &frame);
        assert!(names.insert(name));
    }
    for (name, frame) in samples::down() {
        holds(&name, &frame);
        assert!(names.insert(name));
    }
    let mut body = |name: &str, value| {
        let text = kept_or_written(name, &value);
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            value,
            "{name}"
        );
        names.insert(name.to_owned());
    };
    samples::http(&mut body);
    samples::tunnel(&mut body);
    samples::gateway(&mut body);
    let files: BTreeSet<String> = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|name| !name.starts_with("older-"))
        .collect();
    assert_eq!(files, names, "each file has its sample");
}

#[test]
fn a_hello_of_a_delegate_that_does_not_say_what_was_acknowledged_is_read() {
    let frame: Frame<Up> = serde_json::from_str(&kept("older-hello-without-acked")).unwrap();
    let Frame::Hello { acked, more, .. } = frame else {
        panic!("not a hello: {frame:?}");
    };
    assert_eq!((acked, more), (None, false));
}

/// Adds a field that nobody knows to every object.
fn with_unknown_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_unknown_fields);
            fields.insert("of_a_later_minor".to_owned(), json!({"x": [1]}));
        }
        Value::Array(items) => items.iter_mut().for_each(with_unknown_fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn reads<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

#[test]
fn fields_of_a_later_minor_are_ignored_except_in_a_task_which_is_refused_by_the_fields_name() {
    let check = |name: &str, value: &Value, result: Result<(), String>| {
        let mut later = value.clone();
        with_unknown_fields(&mut later);
        if name.starts_with("data-assign") {
            let error = result.unwrap_err();
            assert!(error.contains("of_a_later_minor"), "{name}: {error}");
        } else {
            assert_eq!(result, Ok(()), "{name}: {later}");
        }
    };
    for (name, frame) in samples::up() {
        let mut value = serde_json::to_value(&frame).unwrap();
        let plain = value.clone();
        with_unknown_fields(&mut value);
        check(&name, &plain, reads::<Frame<Up>>(&value).map(drop));
    }
    for (name, frame) in samples::down() {
        let mut value = serde_json::to_value(&frame).unwrap();
        let plain = value.clone();
        with_unknown_fields(&mut value);
        check(&name, &plain, reads::<Frame<Down>>(&value).map(drop));
    }
}

#[test]
fn a_frame_or_body_of_a_later_version_is_named_as_that() {
    let up = [
        (json!({"type": "teleport"}), "teleport"),
        (
            json!({"type": "data", "epoch": 1, "seq": 1, "ack": 0, "body": {"body": "sing"}}),
            "sing",
        ),
    ];
    for (frame, word) in up {
        let error = reads::<Frame<Up>>(&frame).unwrap_err();
        assert!(
            error.contains(&format!("unknown variant `{word}`")),
            "{error}"
        );
        let error = reads::<Frame<Down>>(&frame).unwrap_err();
        assert!(
            error.contains(&format!("unknown variant `{word}`")),
            "{error}"
        );
    }
    let mut task: Value = serde_json::from_str(&kept("data-assign-stop")).unwrap();
    *task.pointer_mut("/body/task/verb/verb").unwrap() = json!("levitate");
    let error = reads::<Frame<Down>>(&task).unwrap_err();
    assert!(error.contains("unknown variant `levitate`"), "{error}");
}

#[test]
fn words_that_only_tell_a_person_something_may_be_of_a_later_minor() {
    let frame = json!({"type": "bye", "code": "gone_fishing", "reason": "x"});
    let Frame::<Up>::Bye { code, .. } = reads(&frame).unwrap() else {
        panic!("{frame}");
    };
    assert_eq!(code, DisconnectCode::Other);
    for (name, pointer) in [
        ("data-task-event-phase-started", "/body/event/event/phase"),
        ("data-task-refused", "/body/failure/code"),
    ] {
        let mut frame: Value = serde_json::from_str(&kept(name)).unwrap();
        *frame.pointer_mut(pointer).unwrap() = json!("of_a_later_minor");
        reads::<Frame<Up>>(&frame).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
