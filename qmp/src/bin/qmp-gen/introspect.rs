//! Writes the table that query-qmp-schema is answered from: the implemented
//! commands, the events, and the types reached from them.

use crate::names::camel;
use crate::schema::{Data, Member, Schema, Type, Union, UnionKind};
use std::collections::{BTreeMap, VecDeque};

/// The table, as Rust code.
pub(crate) fn table(schema: &Schema) -> String {
    let mut walk = Walk { schema, names: BTreeMap::new(), open: VecDeque::new(), types: 0 };
    let mut out = String::from(
        "\n/// Commands, events and types for clients that look before they ask.\n\
         pub(crate) static INTROSPECTION: &[Entity] = &[\n",
    );
    let mut row = |name: &str, kind: String| {
        out.push_str(&format!("    Entity {{ name: \"{name}\", kind: What::{kind} }},\n"));
    };
    for command in schema.commands.iter().filter(|command| !command.pending) {
        let arguments = walk.data(&command.name, &command.data);
        let reply = match &command.returns {
            Some(ty) => walk.ty(ty),
            None => walk.members("", Vec::new()),
        };
        row(&command.name, format!("Command(\"{arguments}\", \"{reply}\")"));
    }
    for event in &schema.events {
        let data = walk.data(&event.name, &event.data);
        row(&event.name, format!("Event(\"{data}\")"));
    }
    while let Some((name, shape)) = walk.open.pop_front() {
        let kind = walk.kind(shape);
        row(&name, kind);
    }
    out.push_str("];\n");
    out
}

struct Walk<'a> {
    schema: &'a Schema,
    /// The names given to what was met, by what it is called in the schema or after its place.
    names: BTreeMap<String, String>,
    /// What was met and is not in the table yet.
    open: VecDeque<(String, Shape)>,
    /// How many numbers were given.
    types: usize,
}

/// A type, before the types in it have names.
enum Shape {
    /// By its type of JSON.
    Builtin(&'static str),
    List(Type),
    Enum(Vec<String>),
    Object(Vec<Member>),
    /// Its name and what it has in every case, the tag among them.
    Union(String, Vec<Member>, String),
    Alternate(Vec<Type>),
}

impl Walk<'_> {
    /// The type of a command's arguments or an event's data.
    fn data(&mut self, owner: &str, data: &Data) -> String {
        match data {
            Data::Named(name) => self.ty(&Type::Named(name.clone())),
            Data::Members(members) => self.members(owner, members.clone()),
        }
    }

    /// An object without a name of its own.
    fn members(&mut self, owner: &str, members: Vec<Member>) -> String {
        let place = if members.is_empty() { "" } else { owner };
        self.number(&format!("{place} arguments"), Shape::Object(members))
    }

    fn ty(&mut self, ty: &Type) -> String {
        let (name, json) = match ty {
            Type::Str => ("str", "string"),
            Type::Int | Type::Sized(_) => ("int", "int"),
            Type::Number => ("number", "number"),
            Type::Bool => ("bool", "boolean"),
            Type::Any => ("any", "value"),
            Type::List(inner) => {
                let name = format!("[{}]", self.ty(inner));
                return self.meet(&name.clone(), name, Shape::List((**inner).clone()));
            }
            Type::Named(name) => return self.number(name, self.shape(name)),
        };
        self.meet(name, name.to_owned(), Shape::Builtin(json))
    }

    /// A type that clients know by a number.
    fn number(&mut self, key: &str, shape: Shape) -> String {
        let name = self.meet(key, self.types.to_string(), shape);
        self.types = self.types.max(name.parse().map_or(0, |number: usize| number + 1));
        name
    }

    fn meet(&mut self, key: &str, name: String, shape: Shape) -> String {
        if let Some(name) = self.names.get(key) {
            return name.clone();
        }
        self.names.insert(key.to_owned(), name.clone());
        self.open.push_back((name.clone(), shape));
        name
    }

    /// What the schema says of a name; that it says something was checked.
    fn shape(&self, name: &str) -> Shape {
        if let Some(members) = self.schema.members_of(name) {
            return Shape::Object(members.to_vec());
        }
        if let Some(e) = self.schema.enums.iter().find(|e| e.name == name) {
            return Shape::Enum(e.values.iter().map(|(value, _)| value.clone()).collect());
        }
        let union = self.union(name);
        match &union.kind {
            UnionKind::Simple => Shape::Union(name.to_owned(), vec![], "type".into()),
            UnionKind::Flat { base, discriminator } => {
                Shape::Union(name.to_owned(), base.clone(), discriminator.clone())
            }
            UnionKind::Alternate => {
                Shape::Alternate(union.cases.iter().map(|(_, _, ty)| ty.clone()).collect())
            }
        }
    }

    fn union(&self, name: &str) -> &Union {
        let union = self.schema.unions.iter().find(|union| union.name == name);
        union.unwrap_or_else(|| unreachable!("{name} is not defined"))
    }

    fn kind(&mut self, shape: Shape) -> String {
        match shape {
            Shape::Builtin(json) => format!("Builtin(crate::JSONType::{})", camel(json)),
            Shape::List(inner) => format!("Array(\"{}\")", self.ty(&inner)),
            Shape::Enum(values) => format!("Enum(&[{}])", quoted(&values)),
            Shape::Object(members) => self.object(&members, None, ""),
            Shape::Union(name, base, tag) => self.union_object(&name, base, &tag),
            Shape::Alternate(types) => {
                let types: Vec<_> = types.iter().map(|ty| self.ty(ty)).collect();
                format!("Alternate(&[{}])", quoted(&types))
            }
        }
    }

    fn object(&mut self, members: &[Member], tag: Option<&str>, cases: &str) -> String {
        let mut list = Vec::new();
        for Member { name, ty, optional, .. } in members {
            // The tag of a union may only be one of its cases, whatever its type admits.
            let ty = match ty {
                Type::Named(number) if tag == Some(name) => number.clone(),
                ty => self.ty(ty),
            };
            list.push(format!("(\"{name}\", \"{ty}\", {optional})"));
        }
        format!("Object {{ members: &[{}], tag: {tag:?}, cases: &[{cases}] }}", list.join(", "))
    }

    fn union_object(&mut self, name: &str, base: Vec<Member>, tag: &str) -> String {
        let union = self.union(name);
        let simple = matches!(union.kind, UnionKind::Simple);
        let cases = union.cases.clone();
        let values = cases.iter().map(|(value, _, _)| value.clone()).collect();
        let tag_type = self.number(&format!("{name} tag"), Shape::Enum(values));
        let mut members: Vec<_> = base.into_iter().filter(|member| member.name != tag).collect();
        members.push(Member {
            name: tag.to_owned(),
            doc: String::new(),
            optional: false,
            ty: Type::Named(tag_type),
        });
        let mut list = Vec::new();
        for (value, doc, ty) in cases {
            let ty = if simple {
                let data = Member { name: "data".into(), doc, optional: false, ty };
                self.members(&format!("{name} {value}"), vec![data])
            } else {
                self.ty(&ty)
            };
            list.push(format!("(\"{value}\", \"{ty}\")"));
        }
        self.object(&members, Some(tag), &list.join(", "))
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    names.join(", ")
}
