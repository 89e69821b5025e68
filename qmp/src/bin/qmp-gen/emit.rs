//! Writes the Rust code.

use crate::names::{camel, snake, type_name};
use crate::schema::{By, Command, Data, Event, Member, Schema, Type, Union, UnionKind};
use std::fmt::Write;

const DERIVE: &str = "#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]\n";

const HEADER: &str = "\
//! Types, commands and events of QMP. Made by `cargo run -p qmp --bin qmp-gen`
//! from the schema: change that, not this.
#![allow(unused_imports, clippy::large_enum_variant)]

use crate::check::{Arg, Kind};
use crate::decode;
use crate::introspect::{Entity, What};
use crate::{Command, CommandSpec, Handle, QmpError, call};
use serde::{Deserialize, Serialize};
use serde::{Deserializer, de::Error as _};
use serde_json::{Map, Value};
use std::time::Duration;
";

/// The whole file.
pub(crate) fn emit(schema: &Schema) -> String {
    let mut out = Emitter { schema, out: HEADER.to_owned() };
    out.enums();
    out.structs();
    for union in &schema.unions {
        out.union(union);
    }
    for command in &schema.commands {
        out.command(command);
    }
    out.dispatch();
    out.events();
    out.out.push_str(&crate::introspect::table(schema));
    out.out
}

struct Emitter<'a> {
    schema: &'a Schema,
    out: String,
}

/// Appends formatted lines; writing to a string cannot fail.
macro_rules! put {
    ($to:expr, $($arg:tt)*) => { let _ = writeln!($to.out, $($arg)*); };
}

impl<'a> Emitter<'a> {
    fn enums(&mut self) {
        for e in &self.schema.enums {
            let name = type_name(&e.name);
            put!(self, "\n/// {}", e.doc);
            put!(
                self,
                "#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]"
            );
            put!(self, "pub enum {name} {{");
            for (value, doc) in &e.values {
                put!(
                    self,
                    "    /// {doc}\n    #[serde(rename = \"{value}\")]\n    {},",
                    camel(value)
                );
            }
            put!(self, "}}\n\nimpl {name} {{");
            put!(self, "    /// Every value, in order.\n    pub const ALL: &'static [Self] = &[");
            for (value, _) in &e.values {
                put!(self, "        Self::{},", camel(value));
            }
            put!(self, "    ];\n");
            put!(self, "    /// The value on the wire.");
            put!(self, "    pub fn as_str(self) -> &'static str {{\n        match self {{");
            for (value, _) in &e.values {
                put!(self, "            Self::{} => \"{value}\",", camel(value));
            }
            put!(self, "        }}\n    }}\n}}");
        }
    }

    fn structs(&mut self) {
        for s in &self.schema.structs {
            put!(self, "\n/// {}", s.doc);
            self.out.push_str(DERIVE);
            put!(self, "pub struct {} {{", type_name(&s.name));
            self.fields("    ", "pub ", &s.members, Some(&s.name));
            put!(self, "}}");
        }
    }

    fn fields(&mut self, indent: &str, vis: &str, members: &[Member], owner: Option<&str>) {
        for member in members {
            let field = field(member, members);
            put!(self, "{indent}/// {}", member.doc);
            let mut attributes = Vec::new();
            if field.trim_start_matches("r#") != member.name {
                attributes.push(format!("rename = \"{}\"", member.name));
            }
            if member.optional {
                attributes.push("skip_serializing_if = \"Option::is_none\"".into());
            }
            if !attributes.is_empty() {
                put!(self, "{indent}#[serde({})]", attributes.join(", "));
            }
            put!(self, "{indent}{vis}{field}: {},", self.member_type(member, owner));
        }
    }

    fn member_type(&self, member: &Member, owner: Option<&str>) -> String {
        let ty = self.owned_type(&member.ty, owner);
        if member.optional { format!("Option<{ty}>") } else { ty }
    }

    /// The type as a part of `owner`: in a box if it would hold itself.
    fn owned_type(&self, ty: &Type, owner: Option<&str>) -> String {
        match (ty, owner) {
            (Type::Named(part), Some(owner)) if self.schema.is_recursive(owner, part) => {
                format!("Box<{}>", rust_type(ty))
            }
            _ => rust_type(ty),
        }
    }

    fn union(&mut self, union: &Union) {
        match &union.kind {
            UnionKind::Simple => {
                put!(self, "\n/// {}", union.doc);
                self.out.push_str(DERIVE);
                put!(self, "#[serde(tag = \"type\", content = \"data\")]");
                self.cases(&type_name(&union.name), union);
            }
            UnionKind::Flat { base, discriminator } => self.flat(union, base, discriminator),
            UnionKind::Alternate => self.alternate(union),
        }
    }

    /// The enum itself.
    fn cases(&mut self, name: &str, union: &Union) {
        put!(self, "pub enum {name} {{");
        for (tag, doc, ty) in &union.cases {
            let ty = self.owned_type(ty, Some(&union.name));
            put!(
                self,
                "    /// {doc}\n    #[serde(rename = \"{tag}\")]\n    {}({ty}),",
                camel(tag)
            );
        }
        put!(self, "}}");
    }

    /// A struct of the base's members, and an enum for the others, which is
    /// named by the discriminator.
    fn flat(&mut self, union: &Union, base: &[Member], discriminator: &str) {
        let name = type_name(&union.name);
        let cases = format!("{name}{}", camel(discriminator));
        let base: Vec<_> = base.iter().filter(|m| m.name != discriminator).cloned().collect();
        let field = snake(discriminator, std::iter::empty());

        put!(self, "\n/// {}", union.doc);
        put!(self, "#[derive(Clone, Debug, PartialEq, Serialize)]\npub struct {name} {{");
        self.fields("    ", "pub ", &base, Some(&union.name));
        put!(self, "    /// The member `{discriminator}`, and the members that follow from it.");
        put!(self, "    #[serde(flatten)]\n    pub {field}: {cases},\n}}");

        put!(self, "\n/// The cases of [`{name}`].");
        put!(self, "#[derive(Clone, Debug, PartialEq, Serialize)]");
        put!(self, "#[serde(tag = \"{discriminator}\")]");
        self.cases(&cases, union);

        put!(self, "\nimpl<'de> Deserialize<'de> for {name} {{");
        self.begin_deserialize();
        put!(self, "        let mut object = decode::Flat::new(deserializer)?;");
        for member in &base {
            let variable = self::field(member, &base);
            put!(self, "        let {variable} = object.take(\"{}\")?;", member.name);
        }
        put!(self, "        let case: String = object.take(\"{discriminator}\")?;");
        put!(self, "        let {field} = match case.as_str() {{");
        for (tag, _, _) in &union.cases {
            put!(self, "            \"{tag}\" => {cases}::{}(object.finish()?),", camel(tag));
        }
        put!(self, "            _ => return Err(D::Error::custom(QmpError::invalid(&case))),");
        put!(self, "        }};");
        let mut fields: Vec<_> = base.iter().map(|member| self::field(member, &base)).collect();
        fields.push(field);
        put!(self, "        Ok(Self {{ {} }})\n    }}\n}}", fields.join(", "));
    }

    fn begin_deserialize(&mut self) {
        put!(
            self,
            "    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {{"
        );
    }

    fn alternate(&mut self, union: &Union) {
        let name = type_name(&union.name);
        put!(self, "\n/// {}", union.doc);
        put!(self, "#[derive(Clone, Debug, PartialEq, Serialize)]\n#[serde(untagged)]");
        self.cases(&name, union);
        put!(self, "\nimpl<'de> Deserialize<'de> for {name} {{");
        self.begin_deserialize();
        put!(self, "        let value = Value::deserialize(deserializer)?;");
        put!(self, "        match value {{");
        for (tag, _, ty) in &union.cases {
            let pattern = match ty {
                Type::Named(named) if !self.schema.is_enum(named) => "Value::Object(_)",
                Type::Named(_) | Type::Str => "Value::String(_)",
                Type::Int | Type::Sized(_) | Type::Number => "Value::Number(_)",
                Type::Bool => "Value::Bool(_)",
                Type::List(_) => "Value::Array(_)",
                Type::Any => "_",
            };
            put!(self, "            {pattern} => decode::value(value).map(Self::{}),", camel(tag));
        }
        put!(
            self,
            "            _ => Err(D::Error::custom(QmpError::invalid_type(\"null\", \"{}\"))),",
            union.name
        );
        put!(self, "        }}\n    }}\n}}");
    }

    fn command(&mut self, command: &Command) {
        let name = self.command_type(command);
        put!(self, "\n/// `{}`: {}", command.name, command.doc);
        let members: &[Member] = match &command.data {
            Data::Members(members) => {
                self.out.push_str(if command.open {
                    "#[derive(Clone, Debug, PartialEq, Serialize)]\n"
                } else {
                    DERIVE
                });
                put!(self, "pub struct {name} {{");
                self.fields("    ", "pub ", members, None);
                if command.open {
                    put!(self, "    /// The arguments that have no field of their own.");
                    put!(self, "    #[serde(flatten)]\n    pub rest: Map<String, Value>,");
                }
                put!(self, "}}");
                if command.open {
                    self.open(&name, members);
                }
                members
            }
            Data::Named(named) => {
                self.out.push_str(DERIVE);
                put!(self, "#[serde(transparent)]\npub struct {name}(pub {});", type_name(named));
                self.schema.members_of(named).unwrap_or_default()
            }
        };
        put!(self, "\nimpl Command for {name} {{");
        put!(self, "    const NAME: &'static str = \"{}\";", command.name);
        put!(self, "    const ARGS: &'static [Arg] = &[");
        for Member { name, optional, ty, .. } in members {
            put!(
                self,
                "        Arg {{ name: \"{name}\", kind: Kind::{}, optional: {optional} }},",
                self.kind(ty)
            );
        }
        put!(self, "    ];\n    const OPEN: bool = {};", command.open);
        let ret = command.returns.as_ref().map_or("()".into(), rust_type);
        put!(self, "    type Ret = {ret};\n}}");
    }

    fn open(&mut self, name: &str, members: &[Member]) {
        put!(self, "\nimpl<'de> Deserialize<'de> for {name} {{");
        self.begin_deserialize();
        let object = if members.is_empty() { "object" } else { "mut object" };
        put!(self, "        let {object} = decode::Flat::new(deserializer)?;\n        Ok(Self {{");
        for member in members {
            put!(
                self,
                "            {}: object.take(\"{}\")?,",
                field(member, members),
                member.name
            );
        }
        put!(self, "            rest: object.rest(),\n        }})\n    }}\n}}");
    }

    /// What the first look at an argument of the type demands.
    fn kind(&self, ty: &Type) -> &'static str {
        match ty {
            Type::Str => "Str",
            Type::Int | Type::Sized(_) => "Int",
            Type::Number => "Number",
            Type::Bool => "Bool",
            Type::Named(name) if self.schema.is_enum(name) => "Str",
            Type::Named(_) | Type::Any | Type::List(_) => "Any",
        }
    }

    /// A command's type; a type of the schema may have the name already.
    fn command_type(&self, command: &Command) -> String {
        let name = type_name(&command.name);
        let mut types = (self.schema.structs.iter().map(|s| &s.name))
            .chain(self.schema.enums.iter().map(|e| &e.name))
            .chain(self.schema.unions.iter().map(|u| &u.name));
        if types.any(|other| type_name(other) == name) { format!("{name}Command") } else { name }
    }

    fn dispatch(&mut self) {
        let vm: Vec<_> = (self.schema.commands.iter())
            .filter(|command| command.by == By::Vm && !command.pending)
            .map(|command| format!("    Handle<{}>", self.command_type(command)))
            .collect();
        let bounds = vm.join(" +\n");
        put!(self, "\n/// Carries out every command of the schema that is not pending.");
        put!(self, "pub trait Commands:\n{bounds}\n{{\n}}\n");
        put!(self, "impl<T> Commands for T where\n    T:\n{bounds}\n{{\n}}\n");

        put!(self, "/// Runs a command by its name.\n///\n/// # Errors");
        put!(
            self,
            "/// There is no such command, its arguments are wrong, or its handler says so."
        );
        put!(self, "pub fn dispatch<V: Commands>(");
        put!(self, "    vm: &mut V,\n    name: &str,\n    args: Map<String, Value>,");
        put!(self, ") -> Result<Value, QmpError> {{\n    match name {{");
        for command in self.implemented() {
            let host = match command.by {
                By::Vm => "vm",
                By::Crate => "&mut crate::own::Tables",
                By::Session => continue,
            };
            let ty = self.command_type(command);
            put!(self, "        \"{}\" => call::<{ty}, _>({host}, args),", command.name);
        }
        put!(self, "        _ => Err(QmpError::command_not_found(name)),\n    }}\n}}\n");

        put!(self, "/// Every command, in the order of registration.");
        put!(self, "pub static COMMANDS: &[CommandSpec] = &[");
        for command in self.implemented() {
            let ty = self.command_type(command);
            put!(self, "    CommandSpec {{ name: \"{}\", args: {ty}::ARGS }},", command.name);
        }
        put!(self, "];\n");
        let pending = self.schema.commands.iter().filter(|command| command.pending);
        self.names(
            "Commands that have types and no handler: clients are told they do not exist.",
            "PENDING",
            pending.map(|command| command.name.as_str()),
        );
        put!(self, "");
        self.names(
            "The commands that clients expect, implemented or not.",
            "EXPECTED",
            self.schema.counted.iter().map(String::as_str),
        );
    }

    /// The commands that somebody carries out.
    fn implemented(&self) -> impl Iterator<Item = &'a Command> + use<'a> {
        self.schema.commands.iter().filter(|command| !command.pending)
    }

    /// A table of names.
    fn names<'b>(&mut self, doc: &str, table: &str, names: impl Iterator<Item = &'b str>) {
        put!(self, "/// {doc}\npub static {table}: &[&str] = &[");
        for name in names {
            put!(self, "    \"{name}\",");
        }
        put!(self, "];");
    }

    fn events(&mut self) {
        let events = &self.schema.events;
        put!(self, "\n/// What clients are told without asking.");
        put!(self, "#[derive(Clone, Debug, PartialEq, Serialize)]");
        put!(self, "#[serde(tag = \"event\", content = \"data\")]\npub enum Event {{");
        for Event { name, doc, data, .. } in events {
            put!(self, "    /// {doc}\n    #[serde(rename = \"{name}\")]");
            match data {
                Data::Members(members) if members.is_empty() => {
                    put!(self, "    {},", camel(name));
                }
                Data::Members(members) => {
                    put!(self, "    {} {{", camel(name));
                    self.fields("        ", "", members, None);
                    put!(self, "    }},");
                }
                Data::Named(named) => {
                    put!(self, "    {}({}),", camel(name), type_name(named));
                }
            }
        }
        put!(self, "}}\n\nimpl Event {{");
        put!(self, "    /// Its name on the wire.");
        put!(self, "    pub fn name(&self) -> &'static str {{\n        match self {{");
        for event in events {
            put!(self, "            Self::{} => \"{}\",", pattern(event), event.name);
        }
        put!(self, "        }}\n    }}\n");
        put!(self, "    /// The period in which clients are told of one of the kind at most.");
        put!(self, "    pub fn rate_limit(&self) -> Option<Duration> {{\n        match self {{");
        for event in events {
            if let Some(ms) = event.rate_limit_ms {
                put!(
                    self,
                    "            Self::{} => Some(Duration::from_millis({ms})),",
                    pattern(event)
                );
            }
        }
        put!(self, "            _ => None,\n        }}\n    }}\n}}\n");
        self.names(
            "The name of every event, in the order of registration.",
            "EVENTS",
            events.iter().map(|event| event.name.as_str()),
        );
    }
}

/// A pattern for any value of the event.
fn pattern(event: &Event) -> String {
    let name = camel(&event.name);
    match &event.data {
        Data::Members(members) if members.is_empty() => name,
        Data::Members(_) => format!("{name} {{ .. }}"),
        Data::Named(_) => format!("{name}(_)"),
    }
}

fn field(member: &Member, siblings: &[Member]) -> String {
    snake(&member.name, siblings.iter().map(|sibling| sibling.name.as_str()))
}

fn rust_type(ty: &Type) -> String {
    match ty {
        Type::Str => "String".into(),
        Type::Int => "i64".into(),
        Type::Sized(name) => (*name).into(),
        Type::Number => "f64".into(),
        Type::Bool => "bool".into(),
        Type::Any => "Value".into(),
        Type::List(inner) => format!("Vec<{}>", rust_type(inner)),
        Type::Named(name) => type_name(name),
    }
}
