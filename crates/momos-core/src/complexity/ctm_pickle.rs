//! Reads the pickles in which pybdm ships its CTM tables, without a Python interpreter.
//!
//! A pickle is a program for a small stack machine. This one knows the instructions that build
//! dictionaries, tuples, strings and numbers and can name three classes, all of them
//! dictionaries; whatever else a file asks for is an error, so that no file can run code.

use std::cmp::Ordering;

use crate::{Error, Result};

/// One table: the shape of its blocks, and the complexity of each block by its symbols as digits.
pub type Entries<'a> = (Vec<usize>, Vec<(&'a [u8], f64)>);

const DICTIONARIES: [(&[u8], &[u8]); 3] = [
    (b"builtins", b"dict"),
    (b"collections", b"OrderedDict"),
    (b"collections", b"defaultdict"),
];

/// The tables in a pickle of `{shape: {digits: complexity}}`.
///
/// # Errors
/// [`crate::ErrorKind::Corruption`] if it is anything else, [`crate::ErrorKind::InsufficientData`]
/// if it is cut short.
pub fn read(bytes: &[u8]) -> Result<Vec<Entries<'_>>> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(unexpected("more than 4 GiB"));
    }
    let mut machine = Machine {
        bytes,
        position: 0,
        stack: Vec::new(),
        memo: Vec::new(),
        dictionaries: Vec::new(),
    };
    let top = machine.run()?;
    let mut dictionaries = machine.dictionaries;
    let pairs = std::mem::take(&mut dictionaries[top]);
    pairs
        .into_iter()
        .map(|pair| match pair {
            (Value::Shape(shape, dimensions), Value::Dictionary(index)) => {
                let shape = shape[..dimensions as usize]
                    .iter()
                    .map(|&size| size as usize);
                let shape = shape.collect();
                let entries = std::mem::take(&mut dictionaries[index as usize]);
                let entries = entries.into_iter().map(|entry| match entry {
                    (Value::Text(start, end), Value::Float(complexity)) => {
                        Ok((&bytes[start as usize..end as usize], complexity))
                    }
                    _ => Err(unexpected("a table whose entries are not numbers")),
                });
                Ok((shape, entries.collect::<Result<_>>()?))
            }
            _ => Err(unexpected("a dictionary that is not one of tables")),
        })
        .collect()
}

fn unexpected(what: &str) -> Error {
    Error::corruption(format!("the CTM data holds {what}"))
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Mark,
    Integer(u32),
    Float(f64),
    /// Where in the pickle it begins and ends: there are millions, so they are kept small.
    Text(u32, u32),
    /// A tuple of at most two integers, and how many.
    Shape([u32; 2], u8),
    /// A tuple that holds a class: the argument of a `defaultdict`.
    Factory,
    Class,
    /// An index into the machine's dictionaries.
    Dictionary(u32),
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    stack: Vec<Value>,
    memo: Vec<Value>,
    dictionaries: Vec<Vec<(Value, Value)>>,
}

impl<'a> Machine<'a> {
    /// Runs to the end; the index of the dictionary left on the stack.
    fn run(&mut self) -> Result<usize> {
        loop {
            match self.take(1)?[0] {
                b'.' => {
                    return match self.pop()? {
                        Value::Dictionary(index) => Ok(index as usize),
                        _ => Err(unexpected("something else than a dictionary")),
                    };
                }
                // Protocol version and frame length say nothing we need.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                0x8c => self.push_text(1)?,
                b'X' => self.push_text(4)?,
                b'K' => self.push_integer(1)?,
                b'M' => self.push_integer(2)?,
                b'G' => {
                    let bytes = self.take(8)?.try_into().expect("eight bytes");
                    self.stack.push(Value::Float(f64::from_be_bytes(bytes)));
                }
                b'(' => self.stack.push(Value::Mark),
                b')' => self.stack.push(Value::Shape([0; 2], 0)),
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                b'}' => self.push_dictionary(),
                0x93 => self.class()?,
                b'R' => self.call()?,
                b's' => {
                    let pair_start = self.stack.len().checked_sub(2);
                    let start = pair_start.ok_or_else(|| unexpected("too few values"))?;
                    self.set_items(start)?;
                }
                b'u' => {
                    let mark = self
                        .stack
                        .iter()
                        .rposition(|value| matches!(value, Value::Mark))
                        .ok_or_else(|| unexpected("an end without a beginning"))?;
                    self.stack.remove(mark);
                    self.set_items(mark)?;
                }
                0x94 => {
                    let value = self.top()?;
                    self.memo.push(value);
                }
                b'q' => self.remember(1)?,
                b'r' => self.remember(4)?,
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                code => {
                    return Err(unexpected(&format!(
                        "the pickle instruction {code:#04x}, which a table does not need"
                    )));
                }
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        if count > rest.len() {
            return Err(Error::insufficient_data("the CTM data is cut short"));
        }
        self.position += count;
        Ok(&rest[..count])
    }

    fn integer(&mut self, size: usize) -> Result<usize> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(self.take(size)?);
        Ok(u64::from_le_bytes(bytes) as usize)
    }

    fn push_integer(&mut self, size: usize) -> Result<()> {
        let value = self.integer(size)?;
        self.stack.push(Value::Integer(value as u32));
        Ok(())
    }

    fn push_text(&mut self, size: usize) -> Result<()> {
        let length = self.integer(size)?;
        let start = self.position;
        self.take(length)?;
        self.stack
            .push(Value::Text(start as u32, self.position as u32));
        Ok(())
    }

    fn push_dictionary(&mut self) {
        self.stack
            .push(Value::Dictionary(self.dictionaries.len() as u32));
        self.dictionaries.push(Vec::new());
    }

    fn top(&self) -> Result<Value> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| unexpected("too few values"))
    }

    fn pop(&mut self) -> Result<Value> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn tuple(&mut self, size: usize) -> Result<()> {
        let mut shape = [0; 2];
        let mut factory = false;
        for slot in shape[..size].iter_mut().rev() {
            match self.pop()? {
                Value::Integer(value) => *slot = value,
                Value::Class => factory = true,
                _ => return Err(unexpected("a tuple that is not a shape")),
            }
        }
        self.stack.push(if factory {
            Value::Factory
        } else {
            Value::Shape(shape, size as u8)
        });
        Ok(())
    }

    fn class(&mut self) -> Result<()> {
        match (self.pop()?, self.pop()?) {
            (Value::Text(name, name_end), Value::Text(module, module_end)) => {
                let text = |start: u32, end: u32| &self.bytes[start as usize..end as usize];
                if !DICTIONARIES.contains(&(text(module, module_end), text(name, name_end))) {
                    return Err(unexpected("a class that is not a dictionary"));
                }
                self.stack.push(Value::Class);
                Ok(())
            }
            _ => Err(unexpected("a class without a name")),
        }
    }

    /// Makes a dictionary of one of the classes.
    fn call(&mut self) -> Result<()> {
        match (self.pop()?, self.pop()?) {
            (Value::Factory | Value::Shape(_, 0), Value::Class) => {
                self.push_dictionary();
                Ok(())
            }
            _ => Err(unexpected("a call of something that is not a dictionary")),
        }
    }

    /// Puts the pairs from that place of the stack on into the dictionary before them.
    fn set_items(&mut self, start: usize) -> Result<()> {
        let dictionary = match start.checked_sub(1).map(|index| self.stack[index]) {
            Some(Value::Dictionary(index)) => index as usize,
            _ => return Err(unexpected("entries without a dictionary")),
        };
        let (pairs, rest) = self.stack[start..].as_chunks::<2>();
        if !rest.is_empty() {
            return Err(unexpected("a key without a value"));
        }
        self.dictionaries[dictionary].extend(pairs.iter().map(|&[key, value]| (key, value)));
        self.stack.truncate(start);
        Ok(())
    }

    fn remember(&mut self, size: usize) -> Result<()> {
        let index = self.integer(size)?;
        let value = self.top()?;
        match index.cmp(&self.memo.len()) {
            Ordering::Less => self.memo[index] = value,
            Ordering::Equal => self.memo.push(value),
            Ordering::Greater => return Err(unexpected("a reference out of order")),
        }
        Ok(())
    }

    fn recall(&mut self, size: usize) -> Result<()> {
        let index = self.integer(size)?;
        let value = self.memo.get(index).copied();
        self.stack
            .push(value.ok_or_else(|| unexpected("a reference to nothing"))?);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A pickle of `defaultdict(OrderedDict, {(1,): {'0': 1.5}, (2,): {'00': 2.5, '01': 3.5}})`
    /// in the style of protocol 4.
    pub fn example() -> Vec<u8> {
        let mut bytes = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
        let text = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend([0x8c, text.len() as u8]);
            bytes.extend(text);
            bytes.push(0x94);
        };
        text(&mut bytes, b"collections");
        text(&mut bytes, b"defaultdict");
        bytes.extend(b"\x93\x94h\x00");
        text(&mut bytes, b"OrderedDict");
        bytes.extend(b"\x93\x94\x85\x94R\x94(K\x01\x85\x94h\x04)R\x94");
        text(&mut bytes, b"0");
        bytes.push(b'G');
        bytes.extend(1.5f64.to_be_bytes());
        bytes.extend(b"sK\x02\x85\x94}\x94(");
        for (digits, value) in [(b"00", 2.5f64), (b"01", 3.5)] {
            text(&mut bytes, digits);
            bytes.push(b'G');
            bytes.extend(value.to_be_bytes());
        }
        bytes.extend(b"uu.");
        bytes
    }

    #[test]
    fn tables_are_read() {
        let bytes = example();
        let tables = read(&bytes).unwrap();
        assert_eq!(tables[0], (vec![1], vec![(&b"0"[..], 1.5)]));
        assert_eq!(
            tables[1],
            (vec![2], vec![(&b"00"[..], 2.5), (&b"01"[..], 3.5)])
        );
    }

    #[test]
    fn code_is_refused() {
        let error = read(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corruption);
        assert!(read(b"cos\nsystem\n(S'ls'\ntR.").is_err());
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = example();
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InsufficientData);
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(position in 0usize..200, byte in any::<u8>()) {
            let mut bytes = example();
            let position = position % bytes.len();
            bytes[position] = byte;
            let _ = read(&bytes);
        }
    }
}
