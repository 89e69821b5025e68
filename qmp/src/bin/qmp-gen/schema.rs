//! Reads the schema and puts its definitions in order.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Everything the schema defines.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) enums: Vec<Enum>,
    pub(crate) structs: Vec<Struct>,
    pub(crate) unions: Vec<Union>,
    /// In the order of registration.
    pub(crate) commands: Vec<Command>,
    /// In the order of registration.
    pub(crate) events: Vec<Event>,
    /// The commands by which clients judge how much of the interface is there.
    pub(crate) counted: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) values: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) optional: bool,
    pub(crate) ty: Type,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Str,
    Int,
    /// An integer of another width, by its Rust name.
    Sized(&'static str),
    Number,
    Bool,
    Any,
    List(Box<Type>),
    Named(String),
}

#[derive(Debug)]
pub(crate) struct Union {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) kind: UnionKind,
    pub(crate) cases: Vec<(String, String, Type)>,
}

#[derive(Debug)]
pub(crate) enum UnionKind {
    /// `{"type": ..., "data": ...}`
    Simple,
    /// The base's members, the discriminator among them, and the case's.
    Flat { base: Vec<Member>, discriminator: String },
    /// No tag: the JSON type tells.
    Alternate,
}

#[derive(Debug)]
pub(crate) enum Data {
    Members(Vec<Member>),
    Named(String),
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) data: Data,
    pub(crate) returns: Option<Type>,
    pub(crate) by: By,
    pub(crate) open: bool,
    /// Nobody carries it out yet.
    pub(crate) pending: bool,
}

/// Who carries a command out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Vm,
    Crate,
    Session,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) data: Data,
    pub(crate) rate_limit_ms: Option<u64>,
}

type Result<T> = std::result::Result<T, String>;

impl Schema {
    /// Reads every `.json` file of a directory.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let wrong = |error: std::io::Error| format!("{}: {error}", dir.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|ext| ext == "json") {
                files.push(path);
            }
        }
        files.sort();
        let mut schema = Self::default();
        let (mut order, mut pending) = (Value::Null, Value::Null);
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(wrong)?;
            let within = |error: String| format!("{}: {error}", path.display());
            let value = parse(&text).map_err(within)?;
            if path.ends_with("order.json") {
                order = value;
            } else if path.ends_with("pending.json") {
                pending = value;
            } else {
                schema.add_file(value).map_err(within)?;
            }
        }
        schema.flatten_bases()?;
        sort(&mut schema.commands, &order["commands"], |command| &command.name);
        sort(&mut schema.events, &order["events"], |event| &event.name);
        let outside = names(&order["outside"]);
        schema.counted = names(&order["commands"]);
        schema.counted.retain(|name| !outside.contains(name));
        for name in names(&pending) {
            let command = schema.commands.iter_mut().find(|command| command.name == name);
            command.ok_or_else(|| format!("{name}: pending and not defined"))?.pending = true;
        }
        schema.check()?;
        Ok(schema)
    }

    fn add_file(&mut self, value: Value) -> Result<()> {
        for item in value.as_array().ok_or("not a list")? {
            let item = item.as_object().ok_or("a definition that is not an object")?;
            let (kind, name) = item.iter().next().ok_or("an empty definition")?;
            let name = name.as_str().ok_or("a name that is not a string")?.to_owned();
            self.add(kind, &name, item).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }

    fn add(&mut self, kind: &str, name: &str, item: &Map<String, Value>) -> Result<()> {
        let doc = item.get("doc").and_then(Value::as_str).ok_or("lacks its doc")?.to_owned();
        let about = about(item)?;
        let name = name.to_owned();
        let allowed: &[&str] = match kind {
            "enum" => &["data"],
            "struct" | "type" => &["data", "base"],
            "union" => &["data", "base", "discriminator"],
            "alternate" => &["data"],
            "command" => &["data", "returns", "by", "open"],
            "event" => &["data", "rate-limit-ms"],
            _ => return Err(format!("unknown kind of definition '{kind}'")),
        };
        for key in item.keys() {
            if ![kind, "doc", "about"].contains(&key.as_str()) && !allowed.contains(&key.as_str()) {
                return Err(format!("unknown key '{key}'"));
            }
        }
        let data = item.get("data");
        match kind {
            "enum" => {
                let mut values = Vec::new();
                for value in data.and_then(Value::as_array).ok_or("lacks its values")? {
                    let value = value.as_str().ok_or("a value that is not a string")?;
                    values.push((value.to_owned(), about.of(value)));
                }
                self.enums.push(Enum { name, doc, values });
            }
            "struct" | "type" => {
                let mut members = self.members(&name, data, &about)?;
                if let Some(base) = item.get("base").and_then(Value::as_str) {
                    members.insert(0, base_marker(base));
                }
                self.structs.push(Struct { name, doc, members });
            }
            "union" | "alternate" => {
                let kind = match (kind, item.get("discriminator"), item.get("base")) {
                    ("alternate", _, _) => UnionKind::Alternate,
                    (_, None, None) => UnionKind::Simple,
                    (_, Some(Value::String(discriminator)), Some(Value::String(base))) => {
                        UnionKind::Flat {
                            base: vec![base_marker(base)],
                            discriminator: discriminator.clone(),
                        }
                    }
                    _ => return Err("a union of no known kind".into()),
                };
                let mut cases = Vec::new();
                for member in self.members(&name, data, &about)? {
                    cases.push((member.name, member.doc, member.ty));
                }
                self.unions.push(Union { name, doc, kind, cases });
            }
            "command" => {
                let returns = match item.get("returns") {
                    Some(returns) => Some(self.ty(&format!("{name}-return"), returns)?),
                    None => None,
                };
                let by = match item.get("by").and_then(Value::as_str) {
                    None | Some("vm") => By::Vm,
                    Some("crate") => By::Crate,
                    Some("session") => By::Session,
                    Some(by) => return Err(format!("nobody is called '{by}'")),
                };
                let open = item.get("open") == Some(&Value::Bool(true));
                let data = self.data(&name, data, &about)?;
                self.commands.push(Command { name, doc, data, returns, by, open, pending: false });
            }
            _ => {
                let data = self.data(&name, data, &about)?;
                let rate_limit_ms = item.get("rate-limit-ms").and_then(Value::as_u64);
                self.events.push(Event { name, doc, data, rate_limit_ms });
            }
        }
        about.all_used()
    }

    fn data(&mut self, name: &str, data: Option<&Value>, about: &About) -> Result<Data> {
        match data {
            Some(Value::String(named)) => Ok(Data::Named(named.clone())),
            _ => self.members(name, data, about).map(Data::Members),
        }
    }

    fn members(&mut self, owner: &str, data: Option<&Value>, about: &About) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        let Some(data) = data else { return Ok(members) };
        for (name, ty) in data.as_object().ok_or("members that are not an object")? {
            let (name, optional) = match name.strip_prefix('*') {
                Some(name) => (name, true),
                None => (name.as_str(), false),
            };
            let ty = self.ty(&format!("{owner}-{name}"), ty)?;
            members.push(Member { name: name.into(), doc: about.of(name), optional, ty });
        }
        Ok(members)
    }

    /// `place` names a struct that has no name of its own.
    fn ty(&mut self, place: &str, value: &Value) -> Result<Type> {
        Ok(match value {
            Value::String(name) => match name.as_str() {
                "str" => Type::Str,
                "int" | "int64" => Type::Int,
                "int8" => Type::Sized("i8"),
                "int16" => Type::Sized("i16"),
                "int32" => Type::Sized("i32"),
                "uint8" => Type::Sized("u8"),
                "uint16" => Type::Sized("u16"),
                "uint32" => Type::Sized("u32"),
                "uint64" | "size" => Type::Sized("u64"),
                "number" => Type::Number,
                "bool" => Type::Bool,
                "any" | "visitor" | "**" => Type::Any,
                _ => Type::Named(name.clone()),
            },
            Value::Array(items) if items.len() == 1 => {
                Type::List(Box::new(self.ty(place, &items[0])?))
            }
            Value::Object(_) => {
                let members = self.members(place, Some(value), &About::default())?;
                let name = crate::names::camel(place);
                let doc = format!(
                    "A part of [`{}`].",
                    crate::names::camel(place.rsplit_once('-').map_or(place, |(owner, _)| owner),)
                );
                self.structs.push(Struct { name: name.clone(), doc, members });
                Type::Named(name)
            }
            _ => return Err(format!("{place}: not a type")),
        })
    }

    /// Puts the members of bases in place of the markers that name them.
    fn flatten_bases(&mut self) -> Result<()> {
        let all: BTreeMap<String, Vec<Member>> =
            self.structs.iter().map(|s| (s.name.clone(), s.members.clone())).collect();
        for s in &mut self.structs {
            s.members = flat(&s.members, &all)?;
        }
        for union in &mut self.unions {
            if let UnionKind::Flat { base, .. } = &mut union.kind {
                *base = flat(base, &all)?;
            }
        }
        Ok(())
    }

    /// The members of a struct.
    pub(crate) fn members_of(&self, name: &str) -> Option<&[Member]> {
        self.structs.iter().find(|s| s.name == name).map(|s| s.members.as_slice())
    }

    /// Whether the name is an enum's.
    pub(crate) fn is_enum(&self, name: &str) -> bool {
        self.enums.iter().any(|e| e.name == name)
    }

    /// The types that a type holds in place, not behind a list.
    fn parts(&self, name: &str) -> Vec<&str> {
        let members = self.members_of(name).unwrap_or_default().iter().map(|member| &member.ty);
        let union = self.unions.iter().find(|union| union.name == name);
        let cases = union.iter().flat_map(|union| union.cases.iter().map(|(_, _, ty)| ty));
        let base = union.iter().flat_map(|union| match &union.kind {
            UnionKind::Flat { base, .. } => base.as_slice(),
            _ => &[],
        });
        members
            .chain(cases)
            .chain(base.map(|member| &member.ty))
            .filter_map(|ty| match ty {
                Type::Named(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Whether a `part` held in place would make `owner` hold itself.
    pub(crate) fn is_recursive(&self, owner: &str, part: &str) -> bool {
        let (mut seen, mut open) = (Vec::new(), vec![part]);
        while let Some(name) = open.pop() {
            if name == owner {
                return true;
            }
            if !seen.contains(&name) {
                seen.push(name);
                open.extend(self.parts(name));
            }
        }
        false
    }

    /// Every name that is used is defined, once.
    fn check(&self) -> Result<()> {
        let mut names: Vec<&str> = self.structs.iter().map(|s| s.name.as_str()).collect();
        names.extend(self.enums.iter().map(|e| e.name.as_str()));
        names.extend(self.unions.iter().map(|u| u.name.as_str()));
        names.sort_unstable();
        let mut commands: Vec<_> = self.commands.iter().map(|c| c.name.as_str()).collect();
        commands.sort_unstable();
        let mut events: Vec<_> = self.events.iter().map(|e| e.name.as_str()).collect();
        events.sort_unstable();
        for sorted in [&names, &commands, &events] {
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("{}: defined twice", pair[0]));
            }
        }
        let members = self.structs.iter().flat_map(|s| s.members.iter().map(|m| &m.ty));
        let cases = self.unions.iter().flat_map(|u| u.cases.iter().map(|(_, _, ty)| ty));
        let returns = self.commands.iter().filter_map(|c| c.returns.as_ref());
        let data =
            (self.commands.iter().map(|c| &c.data)).chain(self.events.iter().map(|e| &e.data));
        let mut used = Vec::new();
        for data in data {
            match data {
                Data::Named(name) => used.push(name.as_str()),
                Data::Members(members) => used.extend(members.iter().filter_map(|m| m.ty.named())),
            }
        }
        used.extend(members.chain(cases).chain(returns).filter_map(Type::named));
        match used.into_iter().find(|name| names.binary_search(name).is_err()) {
            Some(name) => Err(format!("{name}: used and not defined")),
            None => Ok(()),
        }
    }
}

impl Type {
    /// The defined name in it.
    fn named(&self) -> Option<&str> {
        match self {
            Type::Named(name) => Some(name),
            Type::List(inner) => inner.named(),
            _ => None,
        }
    }
}

/// The sentences about members; each must be asked for.
#[derive(Debug, Default)]
struct About {
    texts: BTreeMap<String, String>,
    used: std::cell::RefCell<Vec<String>>,
}

impl About {
    fn of(&self, name: &str) -> String {
        self.used.borrow_mut().push(name.to_owned());
        self.texts.get(name).cloned().unwrap_or_else(|| format!("`{name}`."))
    }

    fn all_used(&self) -> Result<()> {
        let used = self.used.borrow();
        match self.texts.keys().find(|name| !used.contains(name)) {
            Some(name) => Err(format!("a sentence about '{name}', which is not there")),
            None => Ok(()),
        }
    }
}

fn about(item: &Map<String, Value>) -> Result<About> {
    let mut about = About::default();
    for (name, text) in item.get("about").and_then(Value::as_object).into_iter().flatten() {
        let text = text.as_str().ok_or("a sentence that is not a string")?;
        about.texts.insert(name.clone(), text.to_owned());
    }
    Ok(about)
}

/// Stands for the members of `base` until all structs are known.
fn base_marker(base: &str) -> Member {
    Member {
        name: String::new(),
        doc: String::new(),
        optional: false,
        ty: Type::Named(base.into()),
    }
}

fn flat(members: &[Member], all: &BTreeMap<String, Vec<Member>>) -> Result<Vec<Member>> {
    let mut out = Vec::new();
    for member in members {
        match &member.ty {
            Type::Named(base) if member.name.is_empty() => {
                let base = all.get(base).ok_or_else(|| format!("{base}: no such base"))?;
                out.extend(flat(base, all)?);
            }
            _ => out.push(member.clone()),
        }
    }
    Ok(out)
}

fn parse(text: &str) -> Result<Value> {
    let lines: Vec<_> = text
        .lines()
        .map(|line| if line.trim_start().starts_with('#') { "" } else { line })
        .collect();
    serde_json::from_str(&lines.join("\n")).map_err(|error| error.to_string())
}

/// Sorts by the list; what it lacks comes last, in the order it has.
fn sort<T>(items: &mut [T], order: &Value, name: impl Fn(&T) -> &String) {
    let order = names(order);
    items.sort_by_key(|item| {
        order.iter().position(|listed| listed == name(item)).unwrap_or(order.len())
    });
}

fn names(list: &Value) -> Vec<String> {
    let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}
