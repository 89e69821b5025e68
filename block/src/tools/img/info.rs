//! `vmm-img info`: what is told about an image.
//!
//! On the tool's loop. Names and numbers are the image's; a chain that comes back to itself is
//! refused.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::snapshot::{self, rows};
use super::{Call, Command, Fail, Running};
use crate::image::{BackingFile, Fact, Facts, Snapshot};
use crate::name;
use crate::node::Node;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::console::Console;
use crate::tools::images::{self, Wanted};
use crate::tools::{json, size};

pub(super) const COMMAND: Command = Command {
    name: "info",
    synopsis: "[-f FMT | --image-opts] [--output=human|json] [--backing-chain] [-U] FILE",
    options: &[
        value('f').long("format"),
        long_value("output"),
        long_flag("backing-chain"),
        flag('U').long("force-share"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

/// What is told about one image.
struct About {
    filename: String,
    format: &'static str,
    virtual_size: u64,
    actual_size: Option<u64>,
    facts: Option<Facts>,
    backing: Option<BackingFile>,
    /// The backing file's name as seen from here.
    full_backing: Option<String>,
    snapshots: Vec<Snapshot>,
}

async fn run(call: &Call) -> Result<(), Fail> {
    let as_json = call.json()?;
    let [name] = call.operands("Expecting one image file name")?;
    let chain = call.args.has("backing-chain");
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = Some((name.to_owned(), call.args.get('f').map(str::to_owned)));
    let mut image_opts = call.args.has("image-opts");
    while let Some((name, format)) = next.take() {
        if !seen.insert(name.clone()) {
            return Err(Fail::Told(format!("Backing file '{name}' creates an infinite loop.")));
        }
        let wanted = Wanted { no_backing: true, image_opts, ..call.wanted(&name)? };
        let node = call.open(&Wanted { format: format.as_deref(), ..wanted }).await?;
        image_opts = false;
        let about = About::of(&node, &name);
        call.close().await?;
        if let (true, Some(backing)) = (chain, &about.backing) {
            let full = about.full_backing.clone().unwrap_or_else(|| backing.name.clone());
            let format = backing.format.clone().filter(|format| images::is_format(format));
            next = Some((full, format));
        }
        all.push(about);
    }
    if as_json {
        let mut all: Vec<Value> = all.iter().map(About::json).collect();
        let value = if chain { Value::Array(all) } else { all.pop().unwrap_or_default() };
        call.console.line(json::pretty(value));
    } else {
        for (index, about) in all.iter().enumerate() {
            if index > 0 {
                call.console.line("");
            }
            about.human(&call.console);
        }
    }
    Ok(())
}

impl About {
    fn of(node: &Rc<dyn Node>, name: &str) -> About {
        let image = node.image();
        let backing = image.and_then(|image| image.backing_file());
        let filename = Some(name::of(&**node)).filter(|name| !name.is_empty());
        let filename = filename.unwrap_or_else(|| name.to_owned());
        let full = backing.as_ref().map(|backing| name::combine(&filename, &backing.name));
        About {
            full_backing: full.filter(|full| backing.as_ref().is_some_and(|b| b.name != *full)),
            filename,
            format: node.driver(),
            virtual_size: node.info().size,
            actual_size: allocated(node),
            facts: image.map(|image| image.facts()),
            backing,
            snapshots: image.and_then(|image| image.snapshots()).unwrap_or_default(),
        }
    }

    fn json(&self) -> Value {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| {
            members.insert(name.to_owned(), value);
        };
        put("filename", json!(self.filename));
        put("format", json!(self.format));
        put("virtual-size", json!(self.virtual_size));
        put("dirty-flag", json!(false));
        if let Some(size) = self.actual_size {
            put("actual-size", json!(size));
        }
        if let Some(facts) = &self.facts {
            if let Some(size) = facts.cluster_size {
                put("cluster-size", json!(size));
            }
            if facts.encrypted {
                put("encrypted", json!(true));
            }
            if !facts.specific.is_empty() {
                let data = members_of(&facts.specific);
                put("format-specific", json!({"type": self.format, "data": data}));
            }
        }
        if let Some(backing) = &self.backing {
            put("backing-filename", json!(backing.name));
            if let Some(full) = &self.full_backing {
                put("full-backing-filename", json!(full));
            }
            if let Some(format) = &backing.format {
                put("backing-filename-format", json!(format));
            }
        }
        if !self.snapshots.is_empty() {
            put("snapshots", self.snapshots.iter().map(snapshot::json).collect());
        }
        Value::Object(members)
    }

    fn human(&self, console: &Console) {
        console.line(format_args!("image: {}", self.filename));
        console.line(format_args!("file format: {}", self.format));
        let bytes = self.virtual_size;
        console.line(format_args!("virtual size: {} ({bytes} bytes)", size::short(bytes)));
        let disk = self.actual_size.map_or("unavailable".to_owned(), size::short);
        console.line(format_args!("disk size: {disk}"));
        if let Some(facts) = &self.facts {
            if facts.encrypted {
                console.line("encrypted: yes");
            }
            if let Some(size) = facts.cluster_size {
                console.line(format_args!("cluster_size: {size}"));
            }
        }
        if let Some(BackingFile { name, format }) = &self.backing {
            match &self.full_backing {
                Some(full) => {
                    console.line(format_args!("backing file: {name} (actual path: {full})"));
                }
                None => console.line(format_args!("backing file: {name}")),
            }
            if let Some(format) = format {
                console.line(format_args!("backing file format: {format}"));
            }
        }
        if !self.snapshots.is_empty() {
            rows(console, &self.snapshots);
        }
        if let Some(facts) = self.facts.as_ref().filter(|facts| !facts.specific.is_empty()) {
            specific(console, &facts.specific);
        }
    }
}

/// What only this format has, as people read it.
pub(in crate::tools) fn specific(console: &Console, facts: &[(&'static str, Fact)]) {
    console.line("Format specific information:");
    for (name, fact) in facts {
        tell(console, 4, &name.replace('-', " "), fact);
    }
}

fn tell(console: &Console, indent: usize, name: &str, fact: &Fact) {
    let space = " ".repeat(indent);
    match fact {
        Fact::Text(text) => console.line(format_args!("{space}{name}: {text}")),
        Fact::Number(number) => console.line(format_args!("{space}{name}: {number}")),
        Fact::Flag(flag) => console.line(format_args!("{space}{name}: {flag}")),
        Fact::Words(words) => {
            console.line(format_args!("{space}{name}:"));
            for (index, word) in words.iter().enumerate() {
                console.line(format_args!("{space}    [{index}]: {word}"));
            }
        }
        Fact::List(elements) => {
            console.line(format_args!("{space}{name}:"));
            for (index, members) in elements.iter().enumerate() {
                console.line(format_args!("{space}    [{index}]:"));
                for (name, fact) in members {
                    tell(console, indent + 8, &name.replace('-', " "), fact);
                }
            }
        }
    }
}

fn members_of(facts: &[(&'static str, Fact)]) -> Value {
    let members = facts.iter().map(|(name, fact)| ((*name).to_owned(), value_of(fact)));
    Value::Object(members.collect())
}

fn value_of(fact: &Fact) -> Value {
    match fact {
        Fact::Text(text) => json!(text),
        Fact::Number(number) => json!(number),
        Fact::Flag(flag) => json!(flag),
        Fact::Words(words) => json!(words),
        Fact::List(elements) => elements.iter().map(|members| members_of(members)).collect(),
    }
}

/// Bytes that the files of an image take on their file systems, where these tell.
fn allocated(node: &Rc<dyn Node>) -> Option<u64> {
    if let Some(host) = node.host() {
        return host.allocated();
    }
    let children = node.children();
    let files = children.iter().filter(|(role, _)| matches!(*role, "file" | "data-file"));
    let mut sum = None;
    for (_, file) in files {
        sum = Some(allocated(file)?.saturating_add(sum.unwrap_or(0)));
    }
    sum
}
