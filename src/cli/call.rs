//! A function with its arguments as gdb shows it, and the variables that stand beneath.

use crate::corefile::{Frame, without_arguments};

/// Longest value of an argument in the line of its function, in characters.
const LONGEST: usize = 40;

/// A frame in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call<'f> {
    /// The function, without the types of its arguments where those are shown.
    pub name: String,
    /// `n=3, p=0x0`; `None` where nothing is known of variables.
    pub arguments: Option<String>,
    /// Names and values: the arguments that are too long for the line, and the local variables.
    pub beneath: Vec<(&'f str, &'f str)>,
}

impl<'f> Call<'f> {
    /// Of a frame.
    pub(super) fn of(frame: &'f Frame) -> Self {
        let name = frame.function.as_deref().unwrap_or("??");
        if frame.variables.is_empty() {
            return Call { name: name.to_owned(), arguments: None, beneath: Vec::new() };
        }
        let is_short = |value: &str| value.chars().count() <= LONGEST;
        let all = frame.variables.iter();
        let arguments: Vec<String> = all
            .clone()
            .filter(|v| v.argument)
            .map(|v| format!("{}={}", v.name, if is_short(&v.value) { &v.value } else { "..." }))
            .collect();
        let beneath = all
            .filter(|v| !v.argument || !is_short(&v.value))
            .map(|v| (v.name.as_str(), v.value.as_str()))
            .collect();
        let arguments = Some(arguments.join(", "));
        Call { name: without_arguments(name), arguments, beneath }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::Variable;

    #[test]
    fn arguments_stand_in_the_line() {
        let variable = |name: &str, value: &str, argument| Variable {
            name: name.into(),
            value: value.into(),
            argument,
            ..Variable::default()
        };
        let long = "x".repeat(50);
        let function = Some("shop::sum(int, Basket const&)".to_owned());
        let variables =
            vec![variable("n", "3", true), variable("b", &long, true), variable("i", "1", false)];
        let frame = Frame { function, variables, ..Frame::default() };
        let expected = Call {
            name: "shop::sum".into(),
            arguments: Some("n=3, b=...".into()),
            beneath: vec![("b", long.as_str()), ("i", "1")],
        };
        assert_eq!(Call::of(&frame), expected);
        let plain = Frame { variables: Vec::new(), ..frame.clone() };
        assert_eq!(Call::of(&plain).name, "shop::sum(int, Basket const&)");
    }
}
