// Where this page is: `<name>-<6 characters>.<domain>`. Pure.

export interface Place {
  /** Host label of the gitspace. */
  readonly slug: string;
  /** The user's name for it. */
  readonly name: string;
  /** URL of a port of it, or null where the host has no domain to put a port's label before. */
  portUrl(port: number): string | null;
}

export function placeOf(location: { readonly protocol: string; readonly hostname: string; readonly host: string }): Place {
  const dot = location.hostname.indexOf(".");
  const isAddress = /^[\d.]+$|:/.test(location.hostname);
  const slug = dot > 0 && !isAddress ? location.hostname.slice(0, dot) : location.hostname;
  const named = /^(.+)-[0-9a-z]{6}$/.exec(slug);
  return {
    slug,
    name: named?.[1] ?? slug,
    portUrl: (port) => (dot > 0 && !isAddress ? `${location.protocol}//${port}--${location.host}/` : null),
  };
}

/** A terminal's title as its tab shows it: without the user and host that many shells put before, the same in every tab. */
export function labelOf(title: string): string {
  return title.replace(/^[^\s@:]+@[^\s@:]+:\s*(?=\S)/, "");
}
