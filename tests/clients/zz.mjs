import { start } from './page/browser.mjs';
const b=await start('chromium');const p=await b.open();
await p.goto('http://127.0.0.1:21012/');await p.shows('#count','shown');
await p.until('1000',()=>{scrollTo(0,document.documentElement.scrollHeight);return parseInt(document.querySelector('#rows').style.height)>57*1500});
const cdp=await p.raw.context().newCDPSession(p.raw);
for(const step of [57,400,1190]){
await cdp.send('Profiler.enable');await cdp.send('Profiler.start');
const f=await p.evaluate(async(step)=>{const t=[];let last=performance.now();let y=0;for(let i=0;i<60;i++){y+=step;scrollTo(0,y);await new Promise(requestAnimationFrame);const n=performance.now();t.push(n-last);last=n}t.sort((a,b)=>a-b);return [t[30],t[57],t[59]]},step);
const {profile}=await cdp.send('Profiler.stop');const self=new Map();const dt=profile.timeDeltas;profile.samples.forEach((s,i)=>self.set(s,(self.get(s)??0)+dt[i]));
const by=profile.nodes.map(n=>[n.callFrame.functionName+':'+n.callFrame.url.split('/').pop()+':'+n.callFrame.lineNumber,(self.get(n.id)??0)/1000]).sort((a,b)=>b[1]-a[1]).slice(0,9);
console.log(step,f.map(x=>x.toFixed(1)),by.map(x=>x[0]+' '+x[1].toFixed(0)).join(' | '));}
process.exit(0)
