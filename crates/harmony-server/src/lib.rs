//! HarmonyDB: the server library.
