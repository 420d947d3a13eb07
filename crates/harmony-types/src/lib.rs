//! The contract of the HarmonyDB stack: every data type, trait, error and limit, defined once.
