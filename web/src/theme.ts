// Colours of the terminal, for a light and a dark system setting.

import type { ITheme } from "@xterm/xterm";

const dark: ITheme = {
  background: "#14161b",
  foreground: "#d7dae0",
  cursor: "#8ab4ff",
  cursorAccent: "#14161b",
  selectionBackground: "#34528a",
  black: "#2b303b",
  red: "#f07a7f",
  green: "#8ccf7e",
  yellow: "#e5c76b",
  blue: "#75a9f9",
  magenta: "#c58af0",
  cyan: "#64c9d4",
  white: "#c9ced8",
  brightBlack: "#737b8c",
  brightRed: "#ff9a9e",
  brightGreen: "#a9e59c",
  brightYellow: "#f6dc8c",
  brightBlue: "#9bc2ff",
  brightMagenta: "#dbadff",
  brightCyan: "#8fe3ec",
  brightWhite: "#ffffff",
};

const light: ITheme = {
  background: "#ffffff",
  foreground: "#22262e",
  cursor: "#1f5fd0",
  cursorAccent: "#ffffff",
  selectionBackground: "#bcd3fa",
  black: "#22262e",
  red: "#b3261e",
  green: "#1b6e31",
  yellow: "#7d5a00",
  blue: "#1a57c2",
  magenta: "#8128a8",
  cyan: "#0b6a76",
  white: "#6b7280",
  brightBlack: "#5a6270",
  brightRed: "#d1342b",
  brightGreen: "#25813d",
  brightYellow: "#8f6a0a",
  brightBlue: "#2c6fe0",
  brightMagenta: "#9a3cc4",
  brightCyan: "#13808d",
  brightWhite: "#3b424e",
};

const query = matchMedia("(prefers-color-scheme: light)");

export function currentTheme(): ITheme {
  return query.matches ? light : dark;
}

export function onThemeChange(changed: (theme: ITheme) => void): void {
  query.addEventListener("change", () => changed(currentTheme()));
}
