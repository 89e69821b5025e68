//! A guest that says what it does not use.

use super::*;

/// A machine whose guest has named some pages, and has used one of them again since.
struct Naming {
    ram: Arc<RamBlock>,
    asked: Vec<String>,
    free: Option<Free>,
}

impl Machine for Naming {
    fn harvest(&mut self) -> Result<(), String> {
        self.asked.push("harvest".to_owned());
        Ok(())
    }
    fn hints(&mut self, ask: Hinting) -> Vec<Free> {
        if ask != Hinting::Take || self.asked.last().is_none_or(|last| last != "Take") {
            self.asked.push(format!("{ask:?}"));
        }
        if ask != Hinting::Take {
            return Vec::new();
        }
        let free = self.free.take();
        if free.is_some() {
            self.ram.write(5 * PAGE, b"used again");
        }
        free.into_iter().collect()
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.asked.push("stop".to_owned());
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn pages_that_the_guest_does_not_use_are_not_sent() {
    let (ram, there) = (Fake::new().ram, Fake::new());
    (0..32).for_each(|page| ram.write(page * PAGE, &[page as u8 + 1; 100]));
    let free = Some(Free { block: 0, offset: 4 * PAGE, len: 8 * PAGE });
    let mut here = Naming { ram: ram.clone(), asked: Vec::new(), free };
    let blocks = vec![Block { name: "ram".to_owned(), ram }];
    let mut link = OneWay { bytes: Vec::new(), room: usize::MAX, file: true };
    let (limits, progress) = (Arc::default(), Arc::<Progress>::default());
    let (wants, inventory) = (Wants::default(), inventory());
    send(&mut link, blocks, &inventory, &mut here, &limits, &progress, wants);
    receive(
        &mut Stored(io::Cursor::new(link.bytes)),
        there.blocks(),
        &inventory,
        &mut Taker::default(),
    )
    .unwrap();
    let contents = there.contents();
    let pages: Vec<_> = contents.chunks(PAGE as usize).map(|page| page[20]).collect();
    let expected = (0..32).map(|page| match page {
        // What is there of a page that was not sent is as it was.
        4 | 6..12 => 0,
        page => page + 1,
    });
    assert_eq!(pages, expected.collect::<Vec<u8>>());
    assert!(contents[5 * PAGE as usize..].starts_with(b"used again"));
    // Nobody looks at what was written while a hint can come.
    let mut can_come = false;
    for ask in &here.asked {
        match ask.as_str() {
            "Begin" => can_come = true,
            "End" | "Done" => can_come = false,
            "Take" => assert!(can_come, "{:?}", here.asked),
            _ => assert!(!can_come, "{:?}", here.asked),
        }
    }
    assert!(here.asked.ends_with(&["Done", "stop", "harvest", "Done"].map(str::to_owned)));
}
