//! From JSON values to the typed commands, with QEMU's words for what is wrong.
//!
//! A serde deserializer over [`Value`] that knows the name of the member it is
//! in. Members are decoded in the schema's order, so the first mistake in that
//! order is the one reported; a mandatory member that is absent counts as one of
//! the wrong type; members nobody asked for are an error after all that, except
//! at the top, where [`crate::check`] has already looked.
//!
//! Hostile clients reach it with any value; recursion is bounded by the schema's
//! types and, for `any`, by the parser.

use crate::QmpError;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer,
    MapAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// The name reported for what has none, such as an element of a list.
const NAMELESS: &str = "null";

impl Error for QmpError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        QmpError::generic(message.to_string())
    }
}

/// Decodes a command from its arguments.
///
/// # Errors
/// The first argument that does not fit.
pub fn arguments<T: DeserializeOwned>(args: Map<String, Value>) -> Result<T, QmpError> {
    T::deserialize(Decoder { name: NAMELESS, value: Some(Value::Object(args)), strict: false })
}

/// One value, or the absence of one, under the name of its member.
struct Decoder<'a> {
    name: &'a str,
    value: Option<Value>,
    /// Whether members that the type does not have are an error.
    strict: bool,
}

impl<'a> Decoder<'a> {
    fn member(name: &'a str, value: Option<Value>) -> Self {
        Self { name, value, strict: true }
    }

    fn wrong_type(&self, expected: &str) -> QmpError {
        QmpError::invalid_type(self.name, expected)
    }

    fn integer(&self) -> Result<i128, QmpError> {
        let number = self.value.as_ref().and_then(Value::as_number);
        number.and_then(|n| n.as_i128()).ok_or_else(|| self.wrong_type("integer"))
    }

    fn string(self) -> Result<String, QmpError> {
        match self.value {
            Some(Value::String(text)) => Ok(text),
            _ => Err(self.wrong_type("string")),
        }
    }
}

/// Integers of fewer bits than 64 name their type when the value does not fit.
macro_rules! integers {
    ($($method:ident, $visit:ident, $type:ty, $word:literal;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
            match <$type>::try_from(self.integer()?) {
                Ok(n) => visitor.$visit(n),
                Err(_) => Err(QmpError::expects(self.name, $word)),
            }
        }
    )* };
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = QmpError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        match self.value {
            Some(value) => {
                value.deserialize_any(visitor).map_err(|error| QmpError::generic(error.to_string()))
            }
            None => Err(QmpError::missing(self.name)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        match self.value {
            Some(Value::Bool(value)) => visitor.visit_bool(value),
            _ => Err(self.wrong_type("boolean")),
        }
    }

    integers! {
        deserialize_i8, visit_i8, i8, "int8_t";
        deserialize_i16, visit_i16, i16, "int16_t";
        deserialize_i32, visit_i32, i32, "int32_t";
        deserialize_u8, visit_u8, u8, "uint8_t";
        deserialize_u16, visit_u16, u16, "uint16_t";
        deserialize_u32, visit_u32, u32, "uint32_t";
        deserialize_i64, visit_i64, i64, "int64_t";
    }

    /// The wire has signed integers only: a negative one stands for the
    /// unsigned one of the same bits.
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        let n = self.integer()?;
        match (u64::try_from(n), i64::try_from(n)) {
            (Ok(n), _) => visitor.visit_u64(n),
            (_, Ok(n)) => visitor.visit_u64(n.cast_unsigned()),
            _ => Err(QmpError::expects(self.name, "uint64_t")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        match self.value.as_ref().and_then(Value::as_f64) {
            Some(value) => visitor.visit_f64(value),
            None => Err(self.wrong_type("number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        visitor.visit_string(self.string()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        visitor.visit_string(self.string()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        match self.value {
            None | Some(Value::Null) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        match self.value {
            Some(Value::Array(items)) => {
                visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Element)))
            }
            _ => Err(self.wrong_type("list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QmpError> {
        match self.value {
            Some(Value::Object(_)) => self.deserialize_any(visitor),
            _ => Err(self.wrong_type("QDict")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, QmpError> {
        let Some(Value::Object(given)) = self.value else {
            return Err(self.wrong_type("QDict"));
        };
        let mut members = Members { fields: fields.iter(), current: NAMELESS, given };
        let value = visitor.visit_map(&mut members)?;
        match members.given.keys().next() {
            Some(name) if self.strict => Err(QmpError::unexpected_member(name)),
            _ => Ok(value),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, QmpError> {
        let word = self.string()?;
        if variants.contains(&word.as_str()) {
            visitor.visit_enum(Word(word))
        } else {
            Err(QmpError::invalid(&word))
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, QmpError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

/// The members of an object, as the struct's fields ask for them.
struct Members {
    fields: std::slice::Iter<'static, &'static str>,
    current: &'static str,
    given: Map<String, Value>,
}

impl<'de> MapAccess<'de> for Members {
    type Error = QmpError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, QmpError> {
        let Some(field) = self.fields.next() else { return Ok(None) };
        self.current = field;
        let name: StrDeserializer<'_, QmpError> = self.current.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, QmpError> {
        // `shift` keeps the client's order for the report of what is left.
        let value = self.given.shift_remove(self.current);
        seed.deserialize(Decoder::member(self.current, value))
    }
}

/// An element of a list.
struct Element(Value);

impl<'de> IntoDeserializer<'de, QmpError> for Element {
    type Deserializer = Decoder<'static>;

    fn into_deserializer(self) -> Decoder<'static> {
        Decoder::member(NAMELESS, Some(self.0))
    }
}

/// A word of an enum.
struct Word(String);

impl<'de> EnumAccess<'de> for Word {
    type Error = QmpError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), QmpError> {
        let word: StrDeserializer<'_, QmpError> = self.0.as_str().into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word {
    type Error = QmpError;

    fn unit_variant(self) -> Result<(), QmpError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, QmpError> {
        Err(QmpError::invalid(&self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, QmpError> {
        Err(QmpError::invalid(&self.0))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, QmpError> {
        Err(QmpError::invalid(&self.0))
    }
}

/// An object whose members are taken one by one: flat unions and open commands.
/// For generated code.
pub struct Flat(Map<String, Value>);

impl Flat {
    /// Takes the object.
    ///
    /// # Errors
    /// It is not one.
    pub fn new<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::Deserialize::deserialize(deserializer).map(Self)
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// It does not fit, or is absent and must not be.
    pub fn take<T: DeserializeOwned, E: Error>(&mut self, name: &str) -> Result<T, E> {
        T::deserialize(Decoder::member(name, self.0.shift_remove(name))).map_err(E::custom)
    }

    /// Decodes all that is left as the rest of the union, which must have every
    /// member that is there.
    ///
    /// # Errors
    /// One does not fit.
    pub fn finish<T: DeserializeOwned, E: Error>(self) -> Result<T, E> {
        value(Value::Object(self.0))
    }

    /// All that is left, undecoded.
    pub fn rest(self) -> Map<String, Value> {
        self.0
    }
}

/// Decodes a whole value without a name. For generated code.
///
/// # Errors
/// The value does not fit.
pub fn value<T: DeserializeOwned, E: Error>(value: Value) -> Result<T, E> {
    T::deserialize(Decoder::member(NAMELESS, Some(value))).map_err(E::custom)
}

#[cfg(test)]
mod tests;
