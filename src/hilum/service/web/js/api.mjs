/** Calls of the REST service, as any client makes them. */

/** @typedef {{check: string, severity: "info" | "warning" | "error", message: string}} Finding */
/** @typedef {{rotate: 0 | 90 | 180 | 270, invert: boolean}} Orientation */
/** @typedef {{size: [number, number], counts: number[]}} RunLengths Height and width; runs by columns, of 0 first. */

/**
 * @typedef {object} Evidence
 * @property {string[]} class_names
 * @property {number[][][]} values By class, row and column of the network's map.
 * @property {[number, number, number, number]} placement Top, left, height, width of the image in the network's square.
 */

/**
 * @typedef {object} Prediction
 * @property {string} predicted_label
 * @property {Record<string, number>} probabilities
 * @property {string[]} prediction_set
 * @property {boolean} abstained
 * @property {number} lung_fraction
 * @property {number} height
 * @property {number} width
 * @property {number} pixel_aspect Height of a pixel over its width.
 * @property {Finding[]} findings
 * @property {RunLengths} [mask_rle]
 * @property {Evidence} [evidence]
 * @property {string} [thumbnail]
 * @property {Orientation} [orientation_fix]
 * @property {string} [evidence_summary] Where in the lungs the evidence is, in words.
 */

/**
 * @typedef {object} Problem
 * @property {string} type
 * @property {string} title
 * @property {number} status
 * @property {string} [detail]
 * @property {string} [request_id]
 * @property {Finding[]} [findings]
 * @property {string} [thumbnail]
 * @property {Orientation} [orientation_fix]
 */

/**
 * @typedef {object} Bundle
 * @property {string} bundle_id
 * @property {string} name
 * @property {string[]} class_names
 * @property {string} network
 * @property {number} input_size
 * @property {string} gate
 * @property {number} temperature
 * @property {string} prediction_set_level
 * @property {boolean} has_prediction_sets
 * @property {number | null} abstention_threshold
 * @property {(number | null)[] | null} [class_thresholds] By predicted class, if fitted; null: always uncertain.
 * @property {string[]} sources
 * @property {string} hilum_version
 * @property {number} max_upload_bytes
 * @property {string} notice
 */

const INCLUDE = ["rle", "cells", "thumbnail"].map((name) => `include=${name}`).join("&");
const KIND = "urn:hilum:problem:";

/** A request that the service answered with a problem. */
export class ProblemError extends Error {
  /**
   * @param {Problem} problem
   * @param {number} retryAfter Seconds after which to try again; 0: not to.
   */
  constructor(problem, retryAfter) {
    super(problem.detail || problem.title);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }

  /** Whether the service judged the image itself: `refused` or `unreadable`; null if it did not. */
  get verdict() {
    const { type } = this.problem;
    return type === `${KIND}refused` ? "refused" : type === `${KIND}unreadable` ? "unreadable" : null;
  }

  get isUnauthorized() {
    return this.problem.type === `${KIND}unauthorized`;
  }
}

/** The service at the origin of this page. */
export class Api {
  /** @param {typeof fetch} [fetcher] */
  constructor(fetcher = (input, init) => fetch(input, init)) {
    this.fetcher = fetcher;
    this.token = "";
  }

  /**
   * Predict on one file.
   *
   * @param {BodyInit} content
   * @param {string} type Media type of the content.
   * @param {boolean} corrects Whether to correct the orientation first.
   * @returns {Promise<Prediction>}
   */
  async predict(content, type, corrects) {
    const response = await this.send(`v1/predict?${INCLUDE}${fixed(corrects)}`, content, type);
    const { results } = await response.json();
    return results[0].prediction;
  }

  /**
   * Return an image of one file's prediction as PNG.
   *
   * @param {Blob} content
   * @param {string} type
   * @param {"overlay" | "mask" | "evidence"} image
   * @param {boolean} corrects
   * @returns {Promise<Blob>}
   */
  async png(content, type, image, corrects) {
    const query = `include=${image}${fixed(corrects)}`;
    return (await this.send(`v1/predict?${query}`, content, type, { Accept: "image/png" })).blob();
  }

  /**
   * Return a DICOM object of one DICOM file's prediction.
   *
   * @param {Blob} content
   * @param {"seg" | "sr" | "sc" | "pr"} kind
   * @param {boolean} corrects
   * @returns {Promise<Blob>}
   */
  async dicom(content, kind, corrects) {
    return (await this.send(`v1/dicom?kind=${kind}${fixed(corrects)}`, content, "application/dicom")).blob();
  }

  /**
   * Return the stored gray values of one file: the response of /v1/image.
   *
   * @param {Blob} content
   * @param {string} type
   */
  async image(content, type) {
    const response = await this.send("v1/image", content, type);
    return {
      facts: JSON.parse(response.headers.get("X-Hilum-Image") ?? "{}"),
      buffer: await response.arrayBuffer(),
    };
  }

  /** @returns {Promise<Bundle>} */
  async bundle() {
    return (await this.request("v1/bundle")).json();
  }

  /** @returns {Promise<string>} */
  async card() {
    return (await this.request("v1/bundle/card")).text();
  }

  /** @returns {Promise<any | null>} The audit's summary, or null without one. */
  async audit() {
    try {
      return await (await this.request("v1/audit")).json();
    } catch (error) {
      if (error instanceof ProblemError && error.problem.status === 404) return null;
      throw error;
    }
  }

  /** @returns {Promise<{name: string, caption: string}[]>} */
  async examples() {
    return (await this.request("web/examples")).json();
  }

  /**
   * @param {string} path
   * @param {BodyInit} body
   * @param {string} type
   * @param {Record<string, string>} [headers]
   */
  send(path, body, type, headers = {}) {
    return this.request(path, {
      method: "POST",
      body,
      headers: { "Content-Type": type, ...headers },
    });
  }

  /**
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<Response>}
   */
  async request(path, options = {}) {
    const headers = new Headers(options.headers);
    if (this.token) headers.set("Authorization", `Bearer ${this.token}`);
    const response = await this.fetcher(path, { ...options, headers });
    if (response.ok) return response;
    throw await problemOf(response);
  }
}

/** @param {boolean} corrects Whether to correct the orientation. */
function fixed(corrects) {
  return corrects ? "&fix_orientation=true" : "";
}

/** @param {Response} response */
async function problemOf(response) {
  /** @type {Problem} */
  let problem = {
    type: "about:blank",
    title: response.statusText || `Status ${response.status}`,
    status: response.status,
  };
  if ((response.headers.get("Content-Type") ?? "").includes("application/problem+json"))
    problem = await response.json();
  const after = Number(response.headers.get("Retry-After"));
  const again = response.status === 429 || response.status === 503;
  return new ProblemError(problem, again ? after || 1 : 0);
}
