//! The interface as data: what query-qmp-schema tells.
//!
//! Any thread, no locks; a table of the generator's, given out as it is. It has
//! the commands that are implemented, the events, and the types that they use.

use crate::{
    Handle, JSONType, QmpError, QueryQmpSchema, SchemaInfo, SchemaInfoAlternate,
    SchemaInfoAlternateMember, SchemaInfoArray, SchemaInfoBuiltin, SchemaInfoCommand,
    SchemaInfoEnum, SchemaInfoEnumMember, SchemaInfoEvent, SchemaInfoMetaType as Meta,
    SchemaInfoObject, SchemaInfoObjectMember, SchemaInfoObjectVariant,
};
use serde_json::Value;

/// One thing of the interface. Types are given by the names they have in the table.
#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) name: &'static str,
    pub(crate) kind: What,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum What {
    /// How it is written.
    Builtin(JSONType),
    /// Its words.
    Enum(&'static [&'static str]),
    /// The type of an element.
    Array(&'static str),
    /// Members, and cases by the value of the tag.
    Object { members: &'static [Member], tag: Option<&'static str>, cases: &'static [Case] },
    /// The types.
    #[allow(dead_code, reason = "it depends on the schema whether one is reached")]
    Alternate(&'static [&'static str]),
    /// The types of arguments and reply.
    Command(&'static str, &'static str),
    /// The type of its data.
    Event(&'static str),
}

/// A member's name, its type, and whether it may be absent.
pub(crate) type Member = (&'static str, &'static str, bool);

/// A value of the tag, and the type that holds the members then.
pub(crate) type Case = (&'static str, &'static str);

impl Handle<QueryQmpSchema> for crate::own::Tables {
    fn handle(&mut self, _: QueryQmpSchema) -> Result<Vec<SchemaInfo>, QmpError> {
        Ok(crate::INTROSPECTION.iter().map(info).collect())
    }
}

fn info(entity: &Entity) -> SchemaInfo {
    let meta_type = match entity.kind {
        What::Builtin(json_type) => Meta::Builtin(SchemaInfoBuiltin { json_type }),
        What::Enum(words) => Meta::Enum(SchemaInfoEnum {
            members: list(words, |word| SchemaInfoEnumMember { name: (*word).into() }),
            values: list(words, |word| (*word).into()),
        }),
        What::Array(element) => Meta::Array(SchemaInfoArray { element_type: element.into() }),
        What::Object { members, tag, cases } => Meta::Object(SchemaInfoObject {
            members: list(members, |&(name, ty, optional)| SchemaInfoObjectMember {
                name: name.into(),
                default: optional.then_some(Value::Null),
                r#type: ty.into(),
            }),
            variants: tag.map(|_| {
                list(cases, |&(case, ty)| SchemaInfoObjectVariant {
                    r#type: ty.into(),
                    case: case.into(),
                })
            }),
            tag: tag.map(str::to_owned),
        }),
        What::Alternate(types) => Meta::Alternate(SchemaInfoAlternate {
            members: list(types, |ty| SchemaInfoAlternateMember { r#type: (*ty).into() }),
        }),
        What::Command(arguments, reply) => {
            Meta::Command(SchemaInfoCommand { ret_type: reply.into(), arg_type: arguments.into() })
        }
        What::Event(data) => Meta::Event(SchemaInfoEvent { arg_type: data.into() }),
    };
    SchemaInfo { name: entity.name.into(), meta_type }
}

fn list<T, U>(items: &[T], each: impl Fn(&T) -> U) -> Vec<U> {
    items.iter().map(each).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{COMMANDS, EVENTS, INTROSPECTION};
    use serde_json::json;
    use std::collections::{BTreeMap, BTreeSet};

    fn described(table: &[Entity]) -> Vec<Value> {
        table.iter().map(|entity| json!(info(entity))).collect()
    }

    /// Every place where a type's name stands.
    fn references(item: &Value) -> Vec<&str> {
        let mut found = Vec::new();
        for key in ["arg-type", "ret-type", "element-type"] {
            found.extend(item[key].as_str());
        }
        for key in ["members", "variants"] {
            let list = item[key].as_array();
            found.extend(list.into_iter().flatten().filter_map(|one| one["type"].as_str()));
        }
        found
    }

    /// Every name is there once, and everything is reached from the commands and events.
    fn closed(items: &[Value], roots: &[&str]) {
        let mut names = BTreeMap::new();
        for item in items {
            let name = item["name"].as_str().unwrap();
            assert!(names.insert(name, item).is_none(), "{name} is there twice");
        }
        let (mut used, mut open) = (BTreeSet::new(), roots.to_vec());
        while let Some(name) = open.pop() {
            if used.insert(name) {
                open.extend(references(names[name]));
            }
        }
        assert_eq!(used, names.into_keys().collect());
    }

    /// What is used as an object, or as the type of a tag, is one.
    fn kinds_agree(items: &[Value]) {
        let meta = |name: &str| {
            let item = items.iter().find(|item| item["name"] == name).unwrap();
            item["meta-type"].as_str().unwrap().to_owned()
        };
        for item in items {
            match item["meta-type"].as_str().unwrap() {
                "command" | "event" => {
                    assert_eq!(meta(item["arg-type"].as_str().unwrap()), "object");
                }
                "object" => {
                    for variant in item["variants"].as_array().into_iter().flatten() {
                        assert_eq!(meta(variant["type"].as_str().unwrap()), "object", "{item}");
                    }
                    if let Some(tag) = item.get("tag") {
                        let members = item["members"].as_array().unwrap();
                        let tag = members.iter().find(|member| member["name"] == *tag).unwrap();
                        assert_eq!(meta(tag["type"].as_str().unwrap()), "enum", "{item}");
                    }
                }
                "array" => {
                    let element = item["element-type"].as_str().unwrap();
                    assert_eq!(item["name"], format!("[{element}]"));
                }
                "builtin" | "enum" | "alternate" => {}
                other => panic!("{other}"),
            }
        }
    }

    pub(crate) fn check(table: &[Entity], roots: &[&str]) {
        let items = described(table);
        closed(&items, roots);
        kinds_agree(&items);
    }

    #[test]
    fn the_table_is_whole() {
        let mut roots: Vec<_> = COMMANDS.iter().map(|spec| spec.name).collect();
        roots.extend(EVENTS);
        check(INTROSPECTION, &roots);
    }

    #[test]
    fn an_optional_member_has_null_for_a_default() {
        let items = described(INTROSPECTION);
        let find = |name: &str| items.iter().find(|item| item["name"] == name).unwrap();
        let command = find("query-name");
        let name_info = find(command["ret-type"].as_str().unwrap());
        assert_eq!(name_info["members"], json!([{"name": "name", "default": null, "type": "str"}]));
        assert_eq!(
            find("str"),
            &json!({"name": "str", "meta-type": "builtin", "json-type": "string"})
        );
    }
}
