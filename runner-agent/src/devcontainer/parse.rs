//! Reading devcontainer.json: JSON with comments and trailing commas, hostile.
//!
//! Every error says file, line and column.

use super::{DevContainerFile, is_folder, is_image_name, is_user};
use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{ObjectProp, Value},
    common::Ranged as _,
    parse_to_ast,
};
use std::collections::BTreeMap;
use wire::{
    agent::CommandLine,
    failure::{Failure, FailureCode},
};

const MAX_ENV: usize = 256;
const MAX_VALUE: usize = 32 * 1024;
const MAX_ARGS: usize = 256;
const MAX_PARALLEL: usize = 32;
const MAX_PORTS: usize = 64;
const MAX_IGNORED: usize = 40;
/// Of a property's name in a message.
const MAX_NAME: usize = 64;

/// Properties that say what the user gets and that are not carried out.
const REFUSED: [&str; 13] = [
    "build",
    "dockerFile",
    "dockerfile",
    "context",
    "dockerComposeFile",
    "service",
    "features",
    "initializeCommand",
    "runArgs",
    "mounts",
    "capAdd",
    "securityOpt",
    "workspaceMount",
];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("`{file}` is not valid, line {line}, column {column}: {what}")]
    Invalid {
        file: String,
        line: usize,
        column: usize,
        what: String,
    },
    #[error("`{file}` asks for what is not supported: {}", what.join("; "))]
    Unsupported { file: String, what: Vec<String> },
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        match &error {
            ParseError::Invalid { .. } => Self::new(FailureCode::DevcontainerInvalid, error.to_string())
                .hint("correct the file in the repository, push it, then delete and create the gitspace; or correct it in the workspace and reset the gitspace"),
            ParseError::Unsupported { .. } => Self::new(FailureCode::DevcontainerUnsupported, error.to_string())
                .hint("remove these properties, or name a prebuilt image in `image`"),
        }
    }
}

/// Reads the file called `file`.
pub(crate) fn parse(file: &str, text: &str) -> Result<DevContainerFile, ParseError> {
    let reader = Reader { file, text };
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    // A byte order mark is what Windows editors leave.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options).map_err(|error| {
        ParseError::Invalid {
            file: file.to_owned(),
            line: error.line_display(),
            column: error.column_display(),
            what: error.kind().to_string().to_lowercase(),
        }
    })?;
    let reader = Reader { text, ..reader };
    match parsed.value {
        None => Ok(DevContainerFile::default()),
        Some(Value::Object(object)) => reader.file(&object.properties),
        Some(other) => Err(reader.invalid(&other, "the file is not an object")),
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
}

impl Reader<'_> {
    fn file(&self, properties: &[ObjectProp<'_>]) -> Result<DevContainerFile, ParseError> {
        let mut read = DevContainerFile::default();
        let mut unsupported = Vec::new();
        for property in properties {
            let value = &property.value;
            let name = property.name.as_str();
            if matches!(value, Value::NullKeyword(_)) {
                continue;
            }
            match name {
                "image" => {
                    let image = self.string(name, value)?;
                    // Variables are replaced later, and the result is checked again.
                    if !image.contains("${") && !is_image_name(&image) {
                        return Err(self.invalid(value, "`image` is not the name of an image"));
                    }
                    read.image = Some(image);
                }
                "containerEnv" => read.container_env = self.container_env(name, value)?,
                "remoteEnv" => read.remote_env = self.env(name, value)?,
                "remoteUser" => read.remote_user = Some(self.user(name, value)?),
                "containerUser" => read.container_user = Some(self.user(name, value)?),
                "workspaceFolder" => {
                    let folder = self.string(name, value)?;
                    if !folder.starts_with("${") && !is_folder(&folder) {
                        return Err(self.invalid(
                            value,
                            "`workspaceFolder` is not an absolute path without `..`",
                        ));
                    }
                    read.workspace_folder = Some(folder);
                }
                "onCreateCommand" => read.on_create = self.command(name, value, true)?,
                "postCreateCommand" => read.post_create = self.command(name, value, true)?,
                "postStartCommand" => read.post_start = self.command(name, value, true)?,
                "forwardPorts" => read.forward_ports = self.ports(value)?,
                "name" | "$schema" => {}
                "privileged" => match value {
                    Value::BooleanLit(literal) if !literal.value => {}
                    Value::BooleanLit(_) => unsupported.push("`privileged`".to_owned()),
                    other => {
                        return Err(self.invalid(other, "`privileged` is neither true nor false"));
                    }
                },
                refused if REFUSED.contains(&refused) => {
                    if !is_empty(value) {
                        unsupported.push(format!("`{refused}`"));
                    }
                }
                other => {
                    if read.ignored.len() < MAX_IGNORED {
                        read.ignored.push(
                            other
                                .chars()
                                .filter(|c| !c.is_control())
                                .take(MAX_NAME)
                                .collect(),
                        );
                    }
                }
            }
        }
        if unsupported.is_empty() {
            Ok(read)
        } else {
            Err(ParseError::Unsupported {
                file: self.file.to_owned(),
                what: unsupported,
            })
        }
    }

    fn invalid(&self, value: &Value<'_>, what: impl Into<String>) -> ParseError {
        let before = self.text.get(..value.start()).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ParseError::Invalid {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            what: what.into(),
        }
    }

    fn string(&self, name: &str, value: &Value<'_>) -> Result<String, ParseError> {
        let Value::StringLit(literal) = value else {
            return Err(self.invalid(value, format!("`{name}` is not a string")));
        };
        if literal.value.len() > MAX_VALUE {
            return Err(self.invalid(value, format!("`{name}` is longer than {MAX_VALUE} bytes")));
        }
        if literal.value.contains('\0') {
            return Err(self.invalid(value, format!("`{name}` holds a NUL character")));
        }
        Ok(literal.value.clone().into_owned())
    }

    fn user(&self, name: &str, value: &Value<'_>) -> Result<String, ParseError> {
        let user = self.string(name, value)?;
        if user.contains("${") || is_user(&user) {
            Ok(user)
        } else {
            Err(self.invalid(value, format!("`{name}` is not the name of a user")))
        }
    }

    fn env(
        &self,
        name: &str,
        value: &Value<'_>,
    ) -> Result<BTreeMap<String, Option<String>>, ParseError> {
        let Value::Object(object) = value else {
            return Err(self.invalid(value, format!("`{name}` is not an object")));
        };
        if object.properties.len() > MAX_ENV {
            return Err(self.invalid(value, format!("`{name}` has more than {MAX_ENV} entries")));
        }
        let mut env = BTreeMap::new();
        for property in &object.properties {
            let key = property.name.as_str();
            if key.is_empty() || key.contains(['=', '\0']) {
                return Err(self.invalid(
                    &property.value,
                    format!("a key of `{name}` is not the name of a variable"),
                ));
            }
            let text = match &property.value {
                Value::NullKeyword(_) => None,
                other => Some(self.string(name, other)?),
            };
            env.insert(key.to_owned(), text);
        }
        Ok(env)
    }

    fn container_env(
        &self,
        name: &str,
        value: &Value<'_>,
    ) -> Result<BTreeMap<String, String>, ParseError> {
        Ok(self
            .env(name, value)?
            .into_iter()
            .filter_map(|(key, text)| text.map(|text| (key, text)))
            .collect())
    }

    /// `None` for an empty command, which runs nothing.
    fn command(
        &self,
        name: &str,
        value: &Value<'_>,
        parallel: bool,
    ) -> Result<Option<CommandLine>, ParseError> {
        match value {
            Value::StringLit(_) => {
                let script = self.string(name, value)?;
                Ok((!script.trim().is_empty()).then_some(CommandLine::Shell { script }))
            }
            Value::Array(array) => {
                if array.elements.len() > MAX_ARGS {
                    return Err(self.invalid(
                        value,
                        format!("`{name}` has more than {MAX_ARGS} arguments"),
                    ));
                }
                let argv = array
                    .elements
                    .iter()
                    .map(|element| self.string(name, element))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok((!argv.is_empty()).then_some(CommandLine::Exec { argv }))
            }
            Value::Object(object) if parallel => {
                if object.properties.len() > MAX_PARALLEL {
                    return Err(self.invalid(
                        value,
                        format!("`{name}` has more than {MAX_PARALLEL} commands"),
                    ));
                }
                let mut commands = BTreeMap::new();
                for property in &object.properties {
                    if let Some(command) = self.command(name, &property.value, false)? {
                        commands.insert(property.name.as_str().to_owned(), command);
                    }
                }
                Ok((!commands.is_empty()).then_some(CommandLine::Parallel { commands }))
            }
            other => Err(self.invalid(
                other,
                format!("`{name}` is not a string, a list of strings or an object of these"),
            )),
        }
    }

    fn ports(&self, value: &Value<'_>) -> Result<Vec<u16>, ParseError> {
        let Value::Array(array) = value else {
            return Err(self.invalid(value, "`forwardPorts` is not a list"));
        };
        if array.elements.len() > MAX_PORTS {
            return Err(self.invalid(
                value,
                format!("`forwardPorts` has more than {MAX_PORTS} ports"),
            ));
        }
        let mut ports = Vec::new();
        for element in &array.elements {
            let port = match element {
                Value::NumberLit(number) => {
                    number.value.parse::<u16>().ok().filter(|port| *port > 0)
                }
                Value::StringLit(text) if text.value.contains(':') => {
                    return Err(self.invalid(
                        element,
                        "`forwardPorts` names a port of another host; only ports of the dev container itself are forwarded",
                    ));
                }
                _ => None,
            };
            let Some(port) = port else {
                return Err(self.invalid(
                    element,
                    "an entry of `forwardPorts` is not a port from 1 to 65535",
                ));
            };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        Ok(ports)
    }
}

/// Whether a property that is not carried out asks for nothing.
fn is_empty(value: &Value<'_>) -> bool {
    match value {
        Value::Object(object) => object.properties.is_empty(),
        Value::Array(array) => array.elements.is_empty(),
        Value::StringLit(text) => text.value.is_empty(),
        Value::BooleanLit(literal) => !literal.value,
        Value::NumberLit(_) => false,
        Value::NullKeyword(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DevContainerFile, ParseError> {
        parse("devcontainer.json", text)
    }

    fn position(text: &str) -> (usize, usize, String) {
        match read(text).unwrap_err() {
            ParseError::Invalid {
                line, column, what, ..
            } => (line, column, what),
            other @ ParseError::Unsupported { .. } => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_carried_out_is_read() {
        let read = read(
            r#"{
              // a comment
              "name": "x",
              "image": "debian:12",
              "containerEnv": {"A": "1"},
              "remoteEnv": {"B": "2", "C": null},
              "remoteUser": "dev",
              "workspaceFolder": "/workspaces/x",
              "onCreateCommand": "make",
              "postCreateCommand": ["make", "all"],
              "postStartCommand": {"a": "one", "b": ["two"]},
              "forwardPorts": [3000, 8080, 3000],
              "customizations": {}, /* not ours */
            }"#,
        )
        .unwrap();
        assert_eq!(read.image.as_deref(), Some("debian:12"));
        assert_eq!(read.remote_env.get("C"), Some(&None));
        assert_eq!(read.forward_ports, [3000, 8080]);
        assert_eq!(read.ignored, ["customizations"]);
        assert!(
            matches!(read.post_start, Some(CommandLine::Parallel { commands }) if commands.len() == 2)
        );
    }

    #[test]
    fn a_syntax_error_says_line_and_column() {
        let (line, column, _) = position("{\n  \"image\": \"a\"\n  \"name\": 1\n}");
        // Where the comma is missing.
        assert_eq!((line, column), (2, 15));
        let (line, _, _) = position("{\n  \"image\": ");
        assert!(line <= 2);
    }

    #[test]
    fn a_wrong_type_says_line_and_column() {
        let (line, column, what) = position("{\n  \"image\": 5\n}");
        assert_eq!(
            (line, column, what.as_str()),
            (2, 12, "`image` is not a string")
        );
        let (_, _, what) = position(r#"{"forwardPorts": ["db:5432"]}"#);
        assert!(what.contains("another host"), "{what}");
        position(r#"{"forwardPorts": [0]}"#);
        position(r#"{"forwardPorts": [70000]}"#);
        position(r#"{"postCreateCommand": {"a": {"b": "c"}}}"#);
        position(r#"{"remoteEnv": {"A=B": "c"}}"#);
        position(r#"{"workspaceFolder": "/a/../etc"}"#);
        position(r#"{"image": "../x"}"#);
        position("[]");
    }

    #[test]
    fn what_is_not_supported_is_named_all_at_once() {
        let error = read(r#"{"build": {"dockerfile": "D"}, "features": {"a": {}}, "privileged": true, "mounts": []}"#)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`devcontainer.json` asks for what is not supported: `build`; `features`; `privileged`"
        );
        assert_eq!(
            Failure::from(error).code,
            FailureCode::DevcontainerUnsupported
        );
        read(r#"{"features": {}, "privileged": false, "runArgs": []}"#).unwrap();
    }

    #[test]
    fn deep_json_is_refused() {
        position(&"[".repeat(100_000));
        position(&format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000)));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(read("").unwrap(), DevContainerFile::default());
        assert_eq!(read("\u{feff}{}").unwrap(), DevContainerFile::default());
    }
}
